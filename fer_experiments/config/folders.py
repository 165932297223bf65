"""Where the program is, what comes with it (conf/ and sweeps/), and what their YAMLs say."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_experiments.errors import UserError, first_line

# For ${ in what is plain: OmegaConf parses what follows that, and stops where it is no reference. The first character
# that Unicode leaves to programs.
HIDDEN = "\ue000{"
YAML = 1 << 18  # characters of a YAML
EXPANDED = 1 << 20  # of what it says, where each alias stands for all that it names
INTERPOLATIONS = 16  # each can double what the one before it says


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


def parse_yaml(text: str, *, plain: bool = False) -> Any:
    """A YAML text as OmegaConf's node; 1e-4 is a number, which PyYAML reads as a text. plain: HIDDEN for each ${.

    Raises:
        YAMLError: what is none, or says more than any config has to: a few lines of aliases can say it without end.
    """
    try:
        if len(text) > YAML or _length(yaml.compose(text, yaml.SafeLoader), {}) > EXPANDED:
            raise yaml.YAMLError("it is larger than any config, or its aliases make it so")
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    if text.count("${") > INTERPOLATIONS:
        raise yaml.YAMLError(f"more than {INTERPOLATIONS} interpolations")
    return OmegaConf.load(io.StringIO(text.replace("${", HIDDEN) if plain else text))


def _length(node: Any, known: dict[int, float]) -> float:
    """How long a node is with its aliases written out; without end, if it is in itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")
        inner = getattr(node, "value", ())
        if isinstance(node, yaml.MappingNode):
            inner = chain.from_iterable(inner)
        scalar = isinstance(inner, str)
        known[id(node)] = 1 + (len(inner) if scalar else sum(_length(value, known) for value in inner))
    return known[id(node)]


def exchanged(value: Any, pattern: str, new: str) -> Any:
    """Plain containers with another text in the place of what matches, as `re.sub` does it, in every value."""
    if isinstance(value, str):
        return re.sub(pattern, new, value)
    if isinstance(value, Mapping):
        return {key: exchanged(each, pattern, new) for key, each in value.items()}
    return [exchanged(each, pattern, new) for each in value] if isinstance(value, list | tuple) else value


def read_yaml(text: str, what: str = "a recorded config") -> dict[str, Any]:
    """The keys and values of a YAML text, as plain containers; what: how an error calls it.

    Raises:
        UserError: what is none, or cannot be read within bounds.
    """
    try:
        hidden = OmegaConf.to_container(parse_yaml(text, plain=True))
    except yaml.YAMLError as error:
        raise UserError(f"{what}: not readable as YAML: {' '.join(str(error).split())}") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{what}: {' '.join(str(error).split())}") from error
    container = exchanged(hidden, re.escape(HIDDEN), "${")
    if not isinstance(container, dict):
        raise UserError(f"{what}: must hold keys and values")
    return {str(key): value for key, value in container.items()}


@cache
def yaml_of(group: str, name: str) -> dict[str, Any]:
    """What conf/<group>/<name>.yaml says; nothing where there is none.

    Raises:
        UserError: it cannot be read.
    """
    if name not in options(group):
        return {}
    what = f"conf/{group}/{name}.yaml"
    try:
        text = (config_dir() / group / f"{name}.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what}: not readable as text in UTF-8: {first_line(error)}; mend it") from error
    return read_yaml(text, what)


def expanded(given: str, key: str) -> Path:
    """A path as it was given, with ~ as the folder that it stands for.

    Raises:
        UserError: no such user, or no system takes so long a name.
    """
    try:
        path = Path(given).expanduser()
        path.exists()
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(f"{key}={given}: is no path ({first_line(error).rstrip('.')}); mend it") from error
    return path


def is_file(path: Path) -> bool:
    """Whether there is such a file; of a name that is too long there is none."""
    try:
        return path.is_file()
    except OSError:
        return False
