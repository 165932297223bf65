"""Where the program is, what comes with it (conf/ and sweeps/), and what their YAMLs say."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


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


def options(group: str) -> list[str]:
    """The names of the YAMLs in conf/<group>, sorted."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def read_yaml(text: str) -> dict[str, Any]:
    """The keys and values of a YAML text, as plain containers; 1e-4 is a number, which PyYAML reads as a text."""
    container = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


@cache
def yaml_of(group: str, name: str) -> dict[str, Any]:
    """What conf/<group>/<name>.yaml says; nothing where there is none."""
    file = config_dir() / group / f"{name}.yaml"
    return read_yaml(file.read_text(encoding="utf-8")) if file.is_file() else {}
