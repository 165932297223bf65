"""What commit baea3d8 has made opens, goes on and loads: a store, its sweep, a cache and a champion (see make.sh)."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fer_experiments import cli

ARCHIVE = Path(__file__).with_name("baea3d8.tar.xz")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All of it in another folder than it was made in, which is the working folder: weights are trunk.keras there."""
    folder, before = tmp_path_factory.mktemp("old"), Path.cwd()
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    os.chdir(folder)
    yield folder
    os.chdir(before)


def fer(folder: Path, *arguments: str) -> None:
    assert cli.main([*arguments, f"paths.mlruns={folder}/mlruns", f"paths.cache={folder}/cache"]) == 0


def trials(folder: Path) -> list[dict[str, Any]]:
    """Of the one sweep that there is."""
    (file,) = folder.glob("mlruns/sweeps/*/state.json")
    found: list[dict[str, Any]] = json.loads(file.read_text())["trials"]
    return found


def test_its_sweep_is_listed(old: Path, capfd: pytest.CaptureFixture[str]):
    fer(old, "sweeps")
    assert capfd.readouterr().out.splitlines()[-1].split()[:3] == ["old-fe2c65f2", "finished", "3"]


def test_its_champion_is_listed(old: Path, capfd: pytest.CaptureFixture[str]):
    fer(old, "models", "data=demo")
    told = capfd.readouterr().out
    assert "fer-demo" in told and "champion" in told and "old-fe2c65f2" in told


def test_its_champion_is_trusted_once_and_says_what_it_said_then(old: Path, capfd: pytest.CaptureFixture[str]):
    asked = ["predict", *(f"face{number}.png" for number in range(3)), "data=demo", "--json"]
    assert cli.main([*asked, f"paths.mlruns={old}/mlruns", f"paths.cache={old}/cache"]) == 2
    said = capfd.readouterr().err
    assert "nobody has recorded what its files were" in said and "models trust version=1 data=demo" in said
    fer(old, "models", "trust", "version=1", "data=demo")
    assert "artifacts/network.keras" in capfd.readouterr().out
    fer(old, *asked)
    then, now = json.loads((old / "predicted.json").read_text()), json.loads(capfd.readouterr().out)
    assert [(row["file"], row["label"]) for row in now] == [(row["file"], row["label"]) for row in then]
    for row, before in zip(now, then, strict=True):
        assert row["probabilities"] == pytest.approx(before["probabilities"], abs=1e-5)


def test_its_sweep_goes_on_with_its_features(old: Path, capfd: pytest.CaptureFixture[str]):
    before = trials(old)
    fer(old, "sweep", "sweep=old.yaml", "sweep.max_trials=4")
    told = capfd.readouterr().out
    assert "no image forwarded" in told and "a new one" not in told
    after = trials(old)
    assert after[:3] == before and [trial["status"] for trial in after] == ["finished"] * 4


def test_its_sweep_has_a_report(old: Path):
    fer(old, "report", "sweep=old-fe2c65f2")
    (report,) = old.glob("mlruns/sweeps/*/report.html")
    assert "old-fe2c65f2" in report.read_text()
