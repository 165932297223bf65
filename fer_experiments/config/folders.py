"""Where a config's things lie: what is recorded, and what can be computed again."""

from __future__ import annotations

from pathlib import Path

from fer_experiments.config.schema import Config
from fer_experiments.config.shipped import project_root


def mlruns_dir(config: Config) -> Path:
    """paths.mlruns as an absolute path."""
    return (project_root() / Path(config.paths.mlruns).expanduser()).resolve()


def cache_dir(config: Config) -> Path:
    """paths.cache as an absolute path."""
    return (project_root() / Path(config.paths.cache).expanduser()).resolve()
