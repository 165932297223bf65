"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import gc
import io
import os
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forked  # noqa: F401  before any test starts a process: all are forked from one that has imported the libraries
import numpy as np
import pytest
from chromium import missing, open_browser
from filelock import FileLock
from hypothesis import HealthCheck, settings
from PIL import Image
from tiny_champion import register

import fer_experiments.tracking  # noqa: F401  before a test imports MLflow, which reads the environment only then
from fer_experiments.config import Config
from fer_experiments.serving import loading
from fer_experiments.tracking import sqlite

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.pop("FER2013", None)  # tests say which data they mean

# A loaded machine is no failure.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in what a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests send it to their children, which inherit this

# Minutes each: with `make test` they begin first, so that both workers end at about the same time.
LONGEST = (
    *["test_kill.py", "test_server_attacks.py", "test_sweep_cluster.py", "test_promote.py", "test_sweep_killed.py"],
    *["test_server.py", "test_sweep.py", "test_ui.py", "test_sweep_configs.py", "test_mending.py"],
    "test_request_bounds.py",
    *["test_executor.py", "test_worker_processes.py", "test_cli.py", "test_yamls.py", "test_extraction.py"],
    *["test_cache.py", "test_serve.py"],
)
SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # of xdist
        place = {name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


def pytest_collection_finish() -> None:
    # What is imported stays: a collector that walks it again and again takes an eighth of a test's time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)


@pytest.fixture(scope="session", autouse=True)
def migrating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path, Path], None]]:
    """A store of a test is a copy of one that MLflow has migrated, which takes half a second; commands in processes of
    their own make theirs, and so does what takes this fixture's value for `sqlite.create`."""
    create, made = sqlite.create, tmp_path_factory.mktemp("store") / "mlflow.db"

    def copied(database: Path, artifacts: Path) -> None:
        if not made.exists():
            create(made, made.parent / "artifacts")
        with FileLock(f"{database}.lock"):
            if not database.exists():
                copy = database.with_name(f"{database.name}.copy")
                shutil.copyfile(made, copy)
                with sqlite.connection(copy) as opened:
                    opened.execute("UPDATE experiments SET artifact_location = ?", [f"{artifacts.as_uri()}/0"])
                copy.replace(database)
        create(database, artifacts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite, "create", copied)
        yield create


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("../shared is absent: real FER2013 and real weights are not at hand")
    return SHARED


@pytest.fixture(scope="session")
def fer2013_zip(shared: Path) -> Path:
    return shared / "data" / "fer2013.zip"


@pytest.fixture(scope="session")
def faces(fer2013_zip: Path) -> np.ndarray:
    """The first nine faces of FER2013, uint8 [9, 48, 48]."""
    with zipfile.ZipFile(fer2013_zip) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][:9]
        return np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names])


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A config whose registry has a champion."""
    return register(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def classifier(registered: Config) -> Any:
    """That champion."""
    return loading.load_model(registered, "champion")[1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if why := missing():
        pytest.skip(f"{why}: pages are not opened in a browser")
    with open_browser() as started:
        yield started
