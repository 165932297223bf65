"""Processes forked from one that has imported the libraries."""

from __future__ import annotations

import os
import sys
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
