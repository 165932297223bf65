"""How often a lost server is asked again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import config_in

from fer_experiments import tracking
from fer_experiments.tracking import outages

VARIABLE = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
AGAIN: dict[str, Callable[[Path], object]] = {
    "at once": lambda mlruns: outages.retry_again(),
    "with the next store": lambda mlruns: tracking.connect(config_in(mlruns)),
}


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize("before", [None, "6", "0"])
def test_what_begins_after_a_lost_store_is_as_patient_as_what_lost_it(
    before: str | None, again: str, mlruns: Path, monkeypatch: pytest.MonkeyPatch
):
    tracking.connect(config_in(mlruns))  # whatever other tests have lost
    with monkeypatch.context() as patch:
        patch.delenv(VARIABLE, raising=False) if before is None else patch.setenv(VARIABLE, before)
        for _ in range(2):
            tracking.stop_retrying()
        assert os.environ[VARIABLE] == "0" and not outages.retrying()
        for _ in range(2):
            AGAIN[again](mlruns)
            assert os.environ.get(VARIABLE) == before
        assert outages.retrying() == (before != "0")
