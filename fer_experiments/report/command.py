"""A config as a command to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from fer_experiments.compose import compose
from fer_experiments.config import config_dir, flatten, from_dict, to_dict

GROUPS = ("data", "backbone", "head")
LEFT_OUT = ("paths", "tracking", "compute", "sweep", "pretrain")  # where and how, not what
WORD = re.compile(r"[A-Za-z_][\w./-]*")  # what Hydra reads as a string without quotes, if it is none of these:
NO_WORDS = ("null", "true", "false", "nan", "inf", "yes", "no", "on", "off")


def train_command(container: Mapping[str, Any]) -> str:
    """`fer train` with the groups of conf/ and the overrides that compose to this config.

    Args:
        container: a config as plain containers.

    Raises:
        UserError: keys that this version does not have.
    """
    wanted = flatten({k: v for k, v in to_dict(from_dict(container)).items() if k not in LEFT_OUT})
    named = {group: wanted.get(f"{group}.name") for group in GROUPS}
    groups = [f"{g}={name}" for g, name in named.items() if name and (config_dir() / g / f"{name}.yaml").is_file()]
    base = flatten(to_dict(compose(groups)))
    changed = [f"{path}={_value(value)}" for path, value in wanted.items() if base.get(path) != value]
    return shlex.join(["fer", "train", *groups, *changed])


def _value(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(_value(v) for v in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_key(k)}:{_value(v)}' for k, v in value.items())}}}"
    if WORD.fullmatch(value) and value.lower() not in NO_WORDS:
        return str(value)
    # Backslashes are escaped before a quote and at the end, and nowhere else (Hydra's grammar).
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + (r"\'" if found[2] else ""), value)
    return f"'{escaped}'"


def _key(key: str) -> str:
    """A dict's key, which Hydra takes without quotes alone: what has a meaning in its grammar is escaped."""
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", key)
