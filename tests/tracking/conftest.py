"""A store of its own for a test, and an environment without a password."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import config_in

from fer_experiments import tracking
from fer_experiments.tracking import Store


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that is migrated and empty, to be copied: migrations take seconds."""
    mlruns = tmp_path_factory.mktemp("migrated")
    tracking.connect(config_in(mlruns))
    return mlruns / "mlflow.db"


@pytest.fixture
def mlruns(tmp_path: Path, migrated: Path) -> Path:
    folder = tmp_path / "mlruns"
    folder.mkdir()
    shutil.copy(migrated, folder)
    return folder


@pytest.fixture
def store(mlruns: Path) -> Store:
    return tracking.connect(config_in(mlruns))


@pytest.fixture
def passwordless() -> Iterator[None]:
    """Without a password in the environment, before and after."""
    before = dict(os.environ)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "FER_DATABASE"):
        os.environ.pop(name, None)
    yield
    os.environ.clear()
    os.environ.update(before)
