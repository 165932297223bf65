"""Hydra's part: conf/, sweeps/ and the overrides of a command line become one Config."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import QuotedString, Sweep
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError, InterpolationKeyError, OmegaConfBaseException

from fer_experiments.config import Config, check, close, config_dir, options, sweeps_dir
from fer_experiments.config.checks import check_effect
from fer_experiments.config.folders import YAML, expanded, is_file, parse_yaml
from fer_experiments.config.overrides import (
    FILE_GROUPS,
    OPEN_DICTS,
    Word,
    group_names,
    known_keys,
    literal,
    literals,
    read_words,
    unreadable,
    value_of,
    whole_of,
)
from fer_experiments.config.parts import YOUNGER
from fer_experiments.config.plain import one_line, schema
from fer_experiments.config.schema import EVERY
from fer_experiments.errors import UserError

OPTIONAL_GROUPS = ("pretrain", "promote", "gate")
RESOLVED = re.compile(r"(?<!\\)(?:\\\\)*\$\{")  # where OmegaConf puts something else
OF_A_KEY = re.compile(r"(?!tracking\b)[A-Za-z_]\w*(\.\w+)*\}")
PLAIN = r"where ${ stands for itself, write \${"
WHOLE = ("data.classes", "data.emotions", "sweep.space", *OPEN_DICTS)


def compose(overrides: Sequence[str], implied: Sequence[str] = ()) -> Config:
    """The config that conf/ and the overrides of a command line make together.

    `experiment=` and `sweep=` take the name of a file in conf/experiment and sweeps/, or the path of a YAML file. A
    group that is typed holds against one that such a file chooses. implied: groups where neither chooses.

    Raises:
        UserError: an unknown group, option or key (with the close ones), a wrong type, or a value out of its choices.
    """
    paths, typed = literals(read_words(overrides))
    words = [*read_words(implied), *typed]
    for word in words:
        _check_group(word)
        if ".." in word.value and word.key in group_names():
            raise UserError(_unknown(word.key, word.value))
    sources = {word: path for word in words if (path := _file_of(word))}
    files = {word: _load_yaml(word, path) for word, path in sources.items()}
    words = [w for w in words if w in typed or not any(_chosen(f, w.key) for other, f in files.items() if other != w)]
    for node in files.values():
        for group in {word.key for word in typed}.intersection(group_names(), node):
            if _is_whole(node, group):
                del node[group]
    whole = [word for word in words if word.key in WHOLE and not word.prefix]
    wholes = [path for path in WHOLE if any(OmegaConf.select(f, path) is not None for f in files.values())]
    wholes += [word.key for word in whole]
    within = [word for word in words if word.key.startswith(tuple(f"{path}." for path in wholes))]
    hydras = [word for word in words if word not in (*whole, *within)]
    given = [_store(word, files[word]) if word in files else str(word) for word in hydras]
    sections = {key.partition(".")[0]: key for key in (*paths, *(w.key for w in words)) if "." in key}
    try:
        composed = _composed(given)
        _refuse_unchosen(composed, sections)
        for key, value in paths.items():
            OmegaConf.update(composed, key, value)
        _replace_whole(composed, list(files.values()), whole)
        _set_within(composed, within)
        _refuse_resolvers(OmegaConf.to_container(composed))
        config = OmegaConf.to_object(composed)
    except OverrideParseException as error:
        raise UserError(unreadable(error.override, error)) from error
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, TypeError, ValueError) as error:
        raise UserError(_readable(error, sources, words)) from error
    except AssertionError:  # what OmegaConf raises, unless under -O, for a key of a section that is None
        keys = [word.key for word in words if word.key.startswith("training.finetune.")]
        if keys and "training=finetune" not in given:
            raise UserError(f"{keys[0]}: say training=finetune too") from None
        _refuse_unchosen(OmegaConf.create({}), sections)
        raise
    assert isinstance(config, Config)
    for word in words:  # Hydra overlooks a missing file of a group that is optional
        if word.key in OPTIONAL_GROUPS and word.value != "null" and getattr(config, word.key) is None:
            raise UserError(_unknown(word.key, word.value))
    if config.sweep and config.sweep.on_end and not paths.get("sweep.on_end"):
        raise UserError(
            f"sweep.on_end={config.sweep.on_end}: a command is taken from the command line alone; say it there"
        )
    check(config)
    either = config.sweep is not None and "training.from_features" in config.sweep.space  # some trials use it
    for key in (*paths, *(word.key for word in words)):
        if not (either and key.startswith("training.")):
            check_effect(key, config)
    return config


def _composed(overrides: list[str]) -> DictConfig:
    ConfigStore.instance().store(name="schema", node=schema())
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return hydra_compose("config", overrides=overrides)


@cache
def _group_section(group: str, name: str) -> Any:
    try:
        return OmegaConf.to_container(_composed([f"{group}={name}"])[group], resolve=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(_readable(error)) from error


def group_section(group: str, name: str) -> dict[str, Any]:
    """The section that `<group>=<name>` makes, as plain containers.

    Raises:
        UserError: no such YAML in conf/<group>.
    """
    if name not in options(group):
        raise UserError(_unknown(group, name))
    return dict(_group_section(group, name))


def _refuse_unchosen(composed: DictConfig, keys: Mapping[str, str]) -> None:
    """keys: by section, the last config path that is set in it."""
    for section, key in keys.items():
        if section in (*OPTIONAL_GROUPS, "sweep") and composed.get(section) is None:
            raise UserError(f"{key}: no {section} is chosen; say {section}=<name>")


def _refuse_resolvers(value: Any, path: str = "") -> None:
    """Outside tracking, which is a place and not recorded as it is, text may stand for another key and nothing else."""
    if isinstance(value, dict):
        for key, each in value.items():
            if f"{path}{key}" != "tracking":
                _refuse_resolvers(each, f"{path}{key}.")
    elif isinstance(value, list):
        for each in value:
            _refuse_resolvers(each, path)
    elif isinstance(value, str) and (found := RESOLVED.search(value)) and not OF_A_KEY.match(value, found.end()):
        raise UserError(
            f"{path[:-1]}: {value[found.start() :]}: only tracking may take what the environment says, what is here is "
            "recorded; write the value itself"
        )


def _check_group(word: Word) -> None:
    """Refuses what is no name of a YAML where one is chosen: Hydra raises of it whatever it comes upon."""
    if word.key in FILE_GROUPS and literal(word) is None:
        raise UserError(f"{word}: leave it out, or name a file")
    if (
        word.key in group_names()
        and not word.prefix
        and not isinstance(value_of(str(word)), str | QuotedString | Sweep)
    ):
        raise UserError(_unknown(word.key, word.value))


def _chosen(node: DictConfig, group: str) -> bool:
    """Whether a file of experiment= or sweep= chooses an option of the group."""
    defaults = [key for entry in node.get("defaults") or () if OmegaConf.is_dict(entry) for key in entry]
    return any(str(key).removeprefix("override").strip(" /") == group for key in defaults) or _is_whole(node, group)


def _is_whole(node: DictConfig, group: str) -> bool:
    """Whether what a file says of a section is one by itself, as in a record, and not a change of what is chosen."""
    said = node.get(group)
    if not OmegaConf.is_dict(said):
        return False
    own = {field.name for field in fields(getattr(EVERY, group)) if f"{group}.{field.name}" not in YOUNGER}
    return "name" in said or own <= set(said)


def _file_of(word: Word) -> Path | None:
    value = literal(word) if word.key in FILE_GROUPS else None
    if not value:
        return None
    folder = sweeps_dir() if word.key == "sweep" else config_dir() / "experiment"
    path = expanded(value, word.key) if value.endswith((".yaml", ".yml")) else folder / f"{value}.yaml"
    if not is_file(path):
        names = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise UserError(f"{word}: no such file; choose one of {names}, or give the path of a .yaml file")
    return path


def _load_yaml(word: Word, path: Path) -> DictConfig:
    try:
        with path.open(encoding="utf-8") as file:
            node = parse_yaml(file.read(YAML + 1))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {one_line(error)}") from error
    if not isinstance(node, DictConfig) or None in node:
        raise UserError(f"{path}: must hold keys and values")
    defaults = node.get("defaults", [])
    if (not OmegaConf.is_list(defaults) and defaults != []) or not all(
        isinstance(entry, str) or OmegaConf.is_dict(entry) for entry in defaults
    ):
        raise UserError(f"{path}: defaults: must be a list such as [override /head: pooled]; mend it or leave it out")
    if ".." in str(node.get("defaults")):
        raise UserError(f"{path}: its defaults lead out of conf/; name YAMLs that are in it")
    if word.key == "sweep" and OmegaConf.is_dict(node.get("sweep")) and "name" not in node.sweep:
        node.sweep.name = path.stem
    return node


def _store(word: Word, node: DictConfig) -> str:
    """Gives Hydra a file of conf/experiment, sweeps/ or anywhere else, and returns the override that picks it."""
    name = _name_of(word)
    ConfigStore.instance().store(group=word.key, name=name, node=node, package="_global_")
    return f"{word.key}={name}"


def _name_of(word: Word) -> str:
    return f"_{hashlib.sha256(word.value.encode(errors='surrogateescape')).hexdigest()[:16]}"  # any path is a name


def _replace_whole(composed: DictConfig, files: list[DictConfig], words: Sequence[Word]) -> None:
    """Sets each of WHOLE to the last one given: OmegaConf would merge the groups of two tasks into one."""
    for path in WHOLE:
        given = [value for f in files if (value := OmegaConf.select(f, path)) is not None]
        given += [whole_of(word) for word in words if word.key == path]
        if given:
            OmegaConf.update(composed, path, given[-1], merge=False, force_add=True)


def _set_within(composed: DictConfig, words: Sequence[Word]) -> None:
    """Sets keys of what is given as a whole, which Hydra never sees."""
    for word in words:
        if not word.prefix and OmegaConf.select(composed, word.key) is None:
            raise UserError(f"{word.key}: no such config path; a new one is +{word}")
        OmegaConf.update(composed, word.key, value_of(str(word)), merge=False, force_add=True)


def _readable(error: Exception, sources: Mapping[Word, Path] | None = None, words: Sequence[Word] = ()) -> str:
    """One line for Hydra's errors: the override, what is wrong with it, and what there is instead.

    sources: the files of experiment= and sweep=, which Hydra knows by other names. words: the overrides.
    """
    text = str(error)
    given = {word.key: word.value for word in words}
    if found := re.search(r"missing mandatory value: (\w+)", text):
        group = str(getattr(error, "full_key", "")).partition(".")[0]
        where = f"conf/{group}/{given[group]}.yaml" if group in given else f"the YAML of {group}"
        return f"{where}: {found[1]} is missing; add it"
    if "is not a ListConfig" in f"{text} {error.__cause__}" and (key := next((k for k in given if k in text), "")):
        return f"{key}={given[key]}: takes a list; say '{key}=[{given[key]}]'"
    for word, path in (sources or {}).items():
        if f"{word.key}/{_name_of(word)}'" in text:
            key = found[1] if (found := re.search(r"full_key: (\S+)", text)) else ""
            said = text.partition("\n")[2].strip().partition("\n")[0] or text
            if key and "not in" in said:
                return f"{path}: {key}: no such config path{close(key, known_keys())}"
            said = re.sub("^In '[^']*': ", "", said)
            return f"{path}: {key}: {said}" if key else f"{path}: {said}"
    if found := re.search(r"Could not find '(\S+)/(\S+)'", text):
        return _unknown(*found.groups())
    if found := re.search(r"Could not override '([^']+)'", text):
        if found[1].startswith(OPEN_DICTS):
            return f"{found[1]}: add a key to it with +{'.'.join(found[1].split('.')[:2])}.<name>=<number>"
        return f"{found[1]}: no such config path{close(found[1], known_keys())}"
    if found := re.search(r"Ambiguous value for argument '(.*?)'", text):
        key, _, value = found[1].partition("=")
        as_list = "" if key in group_names() else f"; a list is '{key}=[{value}]'"
        return f"{found[1]}: several values: `fer train -m` runs one after another{as_list}"
    if text.startswith("Error merging override") and error.__cause__ is not None:
        return f"{text.removeprefix('Error merging override ')}: {_said(error.__cause__)}"
    if isinstance(error, OmegaConfBaseException):
        return _said(error)
    return " ".join(text.split())


def _said(error: BaseException) -> str:
    if isinstance(error, GrammarParseError):
        return f"{error.full_key}: ${{ begins a reference, and this is none; {PLAIN}"
    return f"{one_line(error)}; {PLAIN}" if isinstance(error, InterpolationKeyError) else one_line(error)


def _unknown(group: str, name: str) -> str:
    return f"{group}={name}: no such config; choose one of {', '.join(options(group))}"
