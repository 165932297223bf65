"""Processes forked from one that has imported the libraries."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest

from fer_experiments.executors import forks


def note(path: str) -> None:
    Path(path).write_text(os.environ["SAID"] + str(sorted(os.environ)))


def test_nothing_of_the_program_that_asks_for_one_runs_again_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "program.py"
    program.write_text(f"open({str(tmp_path / 'again')!r}, 'w')\n")
    main = ModuleType("__main__")
    main.__file__ = str(program)  # a script that guards nothing by `if __name__ == "__main__"`
    monkeypatch.setitem(sys.modules, "__main__", main)
    forks.prepare()
    process = forks.start(note, str(tmp_path / "said"), environment={"SAID": "it ran"})
    process.join(600)
    assert process.exitcode == 0
    assert (tmp_path / "said").read_text() == "it ran['SAID']"
    assert not (tmp_path / "again").exists()
    assert sys.modules["__main__"] is main


def note_environment_of_parent(path: str) -> None:
    environ = b"".join(Path("/proc", str(pid), "environ").read_bytes() for pid in (os.getpid(), os.getppid()))
    Path(path).write_bytes(environ)


@pytest.mark.skipif(sys.platform != "linux", reason="forks are of Linux alone")
def test_helpers_that_were_killed_come_back_without_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    forks.prepare()
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not-to-be-seen")
    killed = forks._helpers()
    assert len(killed) == 2
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    while not all(map(forks._has_ended, killed)):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python says that its tracker died
        process = forks.start(note_environment_of_parent, str(tmp_path / "seen"), environment={})
    process.join(600)
    assert process.exitcode == 0 and os.environ["MLFLOW_TRACKING_PASSWORD"] == "not-to-be-seen"
    assert b"PATH=" in (tmp_path / "seen").read_bytes()
    assert b"not-to-be-seen" not in (tmp_path / "seen").read_bytes()
    for pid in forks._helpers():
        assert b"not-to-be-seen" not in Path("/proc", str(pid), "environ").read_bytes()
