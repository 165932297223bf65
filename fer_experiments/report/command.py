"""A config as a command to type."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from fer_experiments.compose import compose
from fer_experiments.config import config_dir, flatten, from_dict, to_dict
from fer_experiments.terminal import override

GROUPS = ("data", "backbone", "head")
LEFT_OUT = ("paths", "tracking", "compute", "sweep", "pretrain")  # where and how, not what


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
    changed = [override(path, value) for path, value in wanted.items() if base.get(path) != value]
    return shlex.join(["fer", "train", *groups, *changed])
