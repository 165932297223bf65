"""Files, folders and locks that several processes see."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from fer_experiments import files


def test_a_temporary_folder_is_its_own_though_another_process_tidies_up_as_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    raced, flock = [], fcntl.flock

    def beaten(file: int, operation: int) -> None:
        if not raced:
            (left,) = tmp_path.glob("some-*/lock")  # opened, and not yet locked
            raced.append(left)
            with files.temporary_folder("some-", tmp_path):
                pass
        flock(file, operation)

    monkeypatch.setattr("fcntl.flock", beaten)
    with files.temporary_folder("some-", tmp_path) as folder:
        assert raced[0].parent != folder and folder.stat().st_mode & 0o077 == 0
        assert files.is_held(folder / "lock")
        with files.temporary_folder("some-", tmp_path) as other:
            assert folder.exists() and other != folder
        assert [*tmp_path.iterdir()] == [folder]
    assert [*tmp_path.iterdir()] == []


def test_what_killed_processes_have_left_is_removed(tmp_path: Path):
    (left := tmp_path / "some-left").mkdir()
    (left / "lock").touch()
    (foreign := tmp_path / "other-left").mkdir()
    (foreign / "lock").touch()
    with files.temporary_folder("some-", tmp_path) as folder:
        assert {*tmp_path.iterdir()} == {folder, foreign}
