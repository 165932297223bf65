"""A sweep whose best is promoted, for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from promoted_sweep import MODEL, Room, promoted_sweep

from fer_experiments.tracking import models


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return promoted_sweep(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def first_again(room: Room) -> Iterator[None]:
    """Version 1 is the champion at the start, whatever other tests have promoted."""
    one = models.find_version(room.store, MODEL, "1")
    assert one is not None
    models.set_alias(room.store, one, "champion")
    yield
