"""What is around the import of a large library."""

from __future__ import annotations

import gc

import pytest

from fer_experiments import quiet
from fer_experiments.quiet import importing


def test_no_garbage_is_looked_for_while_a_library_is_imported_and_afterwards_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quiet, "_own", False)
    frozen = gc.get_freeze_count()
    with importing("a library that is not there"):
        assert not gc.isenabled()
    with pytest.raises(ImportError), importing("a library that is not there"):
        raise ImportError("it cannot be")
    with importing("sys"):
        assert gc.isenabled()  # there is nothing to import
    assert gc.isenabled() and gc.get_freeze_count() == frozen


def test_a_process_of_the_programs_own_never_looks_in_what_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "_own", False)
    quiet.own_process()
    try:
        with importing("a library that is not there"):
            made: list[object] = []
        assert gc.get_freeze_count() and not any(each is made for each in gc.get_objects())
    finally:
        gc.unfreeze()
