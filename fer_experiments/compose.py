"""Hydra's part: conf/, sweeps/ and the overrides of a command line become one Config."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_experiments.config import (
    Config,
    check,
    close,
    config_dir,
    flatten,
    one_line,
    schema,
    sweeps_dir,
)
from fer_experiments.errors import UserError

FILE_GROUPS = ("experiment", "sweep")
OPTIONAL_GROUPS = ("pretrain", "promote", "gate")
WHOLE = ("data.classes", "data.emotions")
OPEN_DICTS = ("gate.floors", "gate.ceilings", "gate.recall")  # of any keys


def compose(overrides: Sequence[str]) -> Config:
    """The config that conf/ and the overrides of a command line make together.

    `experiment=` and `sweep=` take the name of a file in conf/experiment and sweeps/, or the path of a YAML file.

    Raises:
        UserError: an unknown group, option or key (with the close ones), a wrong type, or a value out of its choices.
    """
    ConfigStore.instance().store(name="schema", node=schema())
    files = {o: _load_yaml(o, path) for o in overrides if (path := _file_of(o))}
    whole = [o for o in overrides if o.partition("=")[0] in WHOLE]
    given = [_store(o, files[o]) if o in files else o for o in overrides if o not in whole]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            composed = hydra_compose("config", overrides=given)
        _replace_whole(composed, list(files.values()), whole)
        config = OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(_readable(error)) from error
    except AssertionError as error:  # what OmegaConf raises for a key of a section that is None
        section = next((o for o in given if o.startswith(("sweep.", "pretrain.", "promote.", "gate."))), "")
        name = section.partition(".")[0]
        raise UserError(f"{section.partition('=')[0]}: no {name} is chosen; say {name}=<name>") from error
    assert isinstance(config, Config)
    for override in overrides:  # Hydra overlooks a missing file of a group that is optional
        group, _, value = override.partition("=")
        if group in OPTIONAL_GROUPS and value != "null" and getattr(config, group) is None:
            raise UserError(_unknown(group, value))
    check(config)
    return config


@cache
def _group_section(group: str, name: str) -> Any:
    ConfigStore.instance().store(name="schema", node=schema())
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return OmegaConf.to_container(hydra_compose("config", overrides=[f"{group}={name}"])[group], resolve=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(_readable(error)) from error


def group_section(group: str, name: str) -> dict[str, Any]:
    """The section that `<group>=<name>` makes, as plain containers.

    Raises:
        UserError: no such YAML in conf/<group>.
    """
    if not (config_dir() / group / f"{name}.yaml").is_file():
        raise UserError(_unknown(group, name))
    return dict(_group_section(group, name))


def split_multirun(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of every job of a multirun, in Hydra's order: `head=paper,pooled` makes two.

    Raises:
        UserError: an override that Hydra cannot parse.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        return [list(job) for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None) for job in batch]
    except HydraException as error:
        raise UserError(_readable(error)) from error


def _file_of(override: str) -> Path | None:
    """The YAML file that an `experiment=` or `sweep=` override names."""
    group, _, value = override.partition("=")
    if group not in FILE_GROUPS or value in ("", "null"):
        return None
    folder = sweeps_dir() if group == "sweep" else config_dir() / "experiment"
    path = Path(value) if value.endswith((".yaml", ".yml")) else folder / f"{value}.yaml"
    if not path.is_file():
        options = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise UserError(f"{override}: no such file; choose one of {options}, or give the path of a .yaml file")
    return path


def _load_yaml(override: str, path: Path) -> DictConfig:
    try:
        node = OmegaConf.load(path)  # not PyYAML: it reads 1e-4 as a string
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(node, DictConfig):
        raise UserError(f"{path}: must hold keys and values")
    if override.startswith("sweep=") and OmegaConf.is_dict(node.get("sweep")) and "name" not in node.sweep:
        node.sweep.name = path.stem
    return node


def _store(override: str, node: DictConfig) -> str:
    """Gives Hydra a file of conf/experiment, sweeps/ or anywhere else, and returns the override that picks it."""
    group, _, value = override.partition("=")
    name = f"_{Path(value).stem}"  # not the stem: a file of that name in conf/ would win
    ConfigStore.instance().store(group=group, name=name, node=node, package="_global_")
    return f"{group}={name}"


def _replace_whole(composed: DictConfig, files: list[DictConfig], overrides: list[str]) -> None:
    """Sets each of WHOLE to the last one given: OmegaConf would merge the groups of two tasks into one."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    for path in WHOLE:
        given = [value for f in files if (value := OmegaConf.select(f, path)) is not None]
        given += [o.value() for o in parsed if o.key_or_group == path]
        if given:
            OmegaConf.update(composed, path, given[-1], merge=False, force_add=True)


def _readable(error: Exception) -> str:
    """One line for Hydra's errors: the override, what is wrong with it, and what there is instead."""
    text = str(error)
    if found := re.search(r"Could not find '(\S+)/(\S+)'", text):
        return _unknown(*found.groups())
    if found := re.search(r"Could not override '([^']+)'", text):
        if found[1].startswith(OPEN_DICTS):
            return f"{found[1]}: add a key to it with +{'.'.join(found[1].split('.')[:2])}.<name>=<number>"
        groups = [p.name for p in config_dir().iterdir() if p.is_dir()]
        known = [*groups, "sweep", *_known_paths()]
        return f"{found[1]}: no such config path{close(found[1], known)}"
    if text.startswith("Error merging override") and error.__cause__ is not None:
        return f"{text.removeprefix('Error merging override ')}: {one_line(error.__cause__)}"
    if isinstance(error, OmegaConfBaseException):
        return one_line(error)
    return " ".join(text.split())


def _unknown(group: str, name: str) -> str:
    options = ", ".join(sorted(p.stem for p in (config_dir() / group).glob("*.yaml")))
    return f"{group}={name}: no such config; choose one of {options}"


def _known_paths() -> list[str]:
    from fer_experiments.config import GateConfig, PretrainConfig, PromoteConfig, SweepConfig

    every = Config(sweep=SweepConfig(), pretrain=PretrainConfig(), promote=PromoteConfig(), gate=GateConfig())
    container = OmegaConf.to_container(OmegaConf.structured(every), throw_on_missing=False)
    assert isinstance(container, dict)
    return list(flatten({str(k): v for k, v in container.items()}))
