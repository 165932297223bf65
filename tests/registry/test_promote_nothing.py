"""Promotion without a sweep: an empty store, the name of a model, the kind of a refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_experiments import cli
from fer_experiments.config import DataConfig
from fer_experiments.errors import Refused, UserError
from fer_experiments.tracking import models


def test_where_nothing_is_recorded_nothing_is_created(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for verb in ("promote", "rollback", "models"):
        assert cli.main([verb, f"paths.mlruns={tmp_path / 'mlruns'}"]) == 2
        assert "mlflow.db: nothing is recorded there yet; `" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_demo_faces_never_reach_a_real_models_name():
    assert models.model_name(DataConfig(name="demo", task="happy", source="demo")) == "fer-demo"
    assert models.model_name(DataConfig(name="fer2013", task="happy")) == "fer-happy"


def test_a_refusal_is_no_mistake_of_the_user():
    assert not issubclass(Refused, UserError)
