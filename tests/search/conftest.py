"""A folder for the sweeps of a file."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that keep what the tests record and compute in a folder of their own."""
    folder = tmp_path_factory.mktemp("sweeps")
    return [f"paths.mlruns={folder / 'mlruns'}", f"paths.cache={folder / 'cache'}"]
