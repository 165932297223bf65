"""A folder conf/ with YAMLs of one's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fer_experiments.config import folders
from fer_experiments.config.compose import _group_section


def conf_in(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """A copy of conf/ in this folder, which the program takes for its own."""
    conf = folder / "conf"
    shutil.copytree(folders.config_dir(), conf)
    patch.setattr(folders, "_shipped", lambda name: folder / name)
    for known in (folders.yaml_of, _group_section):  # which other tests may have called the same
        known.cache_clear()
    return conf
