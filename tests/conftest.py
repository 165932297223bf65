"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

import fer_experiments.tracking  # noqa: F401  before a test imports MLflow, which reads the environment only then

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

settings.register_profile("default", deadline=None)  # a loaded machine is no failure
settings.load_profile("default")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in what a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests send it to their children, which inherit this

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("../shared is absent: real FER2013 and real weights are not at hand")
    return SHARED


@pytest.fixture(scope="session")
def fer2013_zip(shared: Path) -> Path:
    return shared / "data" / "fer2013.zip"
