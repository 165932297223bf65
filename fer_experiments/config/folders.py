"""Where things lie: the checkout, conf/ and sweeps/, what is recorded, and what can be computed again."""

from __future__ import annotations

from pathlib import Path

from fer_experiments.config.schema import Config


def project_root() -> Path:
    """The checkout that holds this package, or the current folder when the package is installed from a wheel."""
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "conf" / "config.yaml").is_file() else Path.cwd()


def _shipped(folder: str) -> Path:
    """conf/ or sweeps/: the checkout's own, else the copy inside the wheel."""
    in_checkout = Path(__file__).resolve().parents[2] / folder
    return in_checkout if in_checkout.is_dir() else Path(__file__).resolve().parents[1] / folder


def config_dir() -> Path:
    """The folder conf/."""
    return _shipped("conf")


def sweeps_dir() -> Path:
    """The folder sweeps/."""
    return _shipped("sweeps")


def mlruns_dir(config: Config) -> Path:
    """paths.mlruns as an absolute path."""
    return (project_root() / Path(config.paths.mlruns).expanduser()).resolve()


def cache_dir(config: Config) -> Path:
    """paths.cache as an absolute path."""
    return (project_root() / Path(config.paths.cache).expanduser()).resolve()
