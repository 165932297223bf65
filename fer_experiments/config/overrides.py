"""What is typed after `fer <verb>`, before Hydra reads it: paths as they stand, and what Hydra says unclearly."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from fer_experiments.config.folders import config_dir
from fer_experiments.config.parts import DECLARED_PATHS, EXPERIMENT_SECTIONS, marked
from fer_experiments.config.plain import close, flatten, to_dict
from fer_experiments.config.schema import EVERY
from fer_experiments.errors import EMPTY, UserError

FILE_GROUPS = ("experiment", "sweep")  # take the path of a YAML file too
NO_GROUPS = ("published",)  # folders of conf/ that no config is made of
TEXT_KEYS = {"data.classes": "{calm: [neutral], glad: [happy]}", "data.emotions": "{1: surprise, 2: fear}"}  # such as
OPEN_DICTS = ("gate.floors", "gate.ceilings", "gate.recall", "gate.slices", "gate.worse")  # of any keys
NAMES = ("promote.name", "gate.name")  # by which a command that is printed chooses the YAML again
MAY_BE_EMPTY = ("promote.note",)
LITERAL = marked("several")  # config paths taken as they stand; whether a multirun may name several
OPEN = (*OPEN_DICTS, "data.classes", "backbone.scaling")


@dataclass(frozen=True)
class Word:
    """One override: what comes before its key (nothing, +, ++ or ~), the key, and the value as typed."""

    prefix: str
    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.prefix}{self.key}={self.value}"


def read_words(words: Sequence[str]) -> list[Word]:
    """The overrides of a command line, those refused that Hydra would misread or silently drop.

    Raises:
        UserError: no key=value, a setting of Hydra's own, something added that no config has, braces that the shell
            has taken apart.
    """
    read = [_read(word) for word in words]
    _refuse_expanded_braces(read)
    return read


def _read(word: str) -> Word:
    found = re.fullmatch(r"(\+\+|\+|~|)([^=]*)(=?)(.*)", word, re.DOTALL)
    assert found is not None  # it matches anything
    prefix, key, equals, value = found.groups()
    if re.match(r"hydra\b", key):
        raise UserError(f"{word}: Hydra's own settings have no effect here; paths.mlruns= says where results go")
    if prefix == "~":
        raise UserError(f"{word}: nothing can be taken out of a config; say {key or '<key>'}=<another value>")
    if not key or not equals:
        hint = close(key, known_keys()) if key else ""
        raise UserError(f"{word}: an override is <key>=<value>{hint}")
    if not value and key not in MAY_BE_EMPTY:
        raise UserError(f"{word}: {EMPTY}")
    if key in (*DECLARED_PATHS, *NAMES):
        raise UserError(f"{word}: the YAML in conf/{key.partition('.')[0]} says it, and nothing else can")
    if prefix and not key.startswith(tuple(f"{name}." for name in OPEN)):
        if key in known_keys():
            raise UserError(f"{word}: say {key}={value}")
        raise UserError(f"{key}: no such config path{close(key, known_keys())}")
    return Word(prefix, key, value)


def _refuse_expanded_braces(words: list[Word]) -> None:
    """`key={a:1,b:2}` without quotes reaches a program as `key=a:1` and `key=b:2`."""
    for key in dict.fromkeys(word.key for word in words):
        values = [word.value for word in words if word.key == key]
        if len(values) > 1 and ":" in values[0] and not _is_literal(key):
            whole = f"{key}={{{','.join(values)}}}"
            if isinstance(value_of(whole), dict):
                raise UserError(f"{key}={values[0]}: the shell has taken the braces apart; quote it: '{whole}'")


def value_of(word: str) -> Any:
    """The value that Hydra reads, None where it cannot."""
    try:
        return OverridesParser.create().parse_override(word).value()
    except HydraException:
        return None


def whole_of(word: Word) -> Any:
    """What is typed of a dict with keys of anyone's choice, which are texts; where Hydra's grammar ends, as YAML.

    Raises:
        UserError: it is neither.
    """
    try:
        value: Any = OverridesParser.create().parse_override(str(word)).value()
    except HydraException as error:
        value = next(filter(_is_mapping, map(_in_yaml, (word.value, re.sub(":(?=[^ ])", ": ", word.value)))), None)
        if value is None or word.key not in TEXT_KEYS:
            raise UserError(unreadable(str(word), error)) from error
    if word.key in TEXT_KEYS and isinstance(value, dict):
        return {str(key): member for key, member in value.items()}
    return value


def _in_yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and None not in value.values()


def _is_literal(key: str) -> bool:
    return key in FILE_GROUPS or key in LITERAL


def literals(words: Sequence[Word]) -> tuple[dict[str, str | None], list[Word]]:
    """The values of config paths that are taken as they stand, by path; and the other words."""
    taken = {word.key: literal(word) for word in words if word.key in LITERAL}
    return taken, [word for word in words if word.key not in taken]


def literal(word: Word) -> str | None:
    """A value as it stands, whatever Hydra's grammar makes of its characters; out of its quotes if it has some."""
    value = word.value
    if value == "null":
        return None
    if re.fullmatch(r"(['\"]).*\1", value, re.DOTALL) and not _exists(value):
        unquoted = value_of(str(word))
        return unquoted if isinstance(unquoted, str) else value
    return value


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, no such user
        return False


def check_named(words: Sequence[str], own: Iterable[str]) -> None:
    """Refuses what looks like an argument of a command's own, such as port, and is nothing else.

    Raises:
        UserError: with what it looks like.
    """
    for word in words:
        key = word.partition("=")[0]
        if key not in known_keys() and "." not in key and (hint := close(key, own, cutoff=0.7)):
            raise UserError(f"{word}: no such option{hint}")


def check_recorded(words: Sequence[str], unread: Sequence[str] = ()) -> None:
    """Refuses overrides of what a command takes from the record of a sweep or a run, and would leave unread.

    unread: sections that it has no use for, besides a sweep's and a pretraining's.

    Raises:
        UserError: naming it.
    """
    for word in words:
        key = word.partition("=")[0].lstrip("+~")
        if key.partition(".")[0] in (*unread, "sweep", "pretrain"):
            raise UserError(f"{word}: this command makes nothing of it; leave it out")
        if key.partition(".")[0] in (*EXPERIMENT_SECTIONS, "experiment") and key != "data.path":
            raise UserError(
                f"{word}: the experiment is what is on record; leave it out (data.path may be another today)"
            )


def split_multirun(words: Sequence[str]) -> list[list[str]]:
    """The overrides of every job of a multirun, the last one varying fastest: `head=paper,pooled` makes two.

    Raises:
        UserError: an override that cannot be read, or that names no finite number of values.
    """
    return [list(job) for job in itertools.product(*map(_alternatives, read_words(words)))]


def _alternatives(word: Word) -> list[str]:
    if _is_literal(word.key):
        whole = _exists(word.value) or word.value[:1] in ("'", '"') or not LITERAL.get(word.key, True)
        return [str(word)] if whole else [f"{word.key}={value}" for value in word.value.split(",")]
    try:
        parsed = OverridesParser.create().parse_override(str(word))
    except HydraException as error:
        if word.key in TEXT_KEYS:
            return [str(word)]
        raise UserError(unreadable(str(word), error)) from error
    if not parsed.is_sweep_override():
        return [str(word)]
    if not parsed.is_discrete_sweep():
        raise UserError(f"{word}: not a list of values; say {word.key}=<value>,<value>")
    return [f"{parsed.get_key_element()}={value}" for value in parsed.sweep_string_iterator()]


def unreadable(word: str, error: Exception) -> str:
    """A line for an override that Hydra's grammar does not take."""
    key, _, value = word.partition("=")
    if key in TEXT_KEYS:
        return f"{word}: says no keys and values; say it as '{key}={TEXT_KEYS[key]}'"
    why = " ".join(str(error).partition("\nSee ")[0].split())
    return f"{word}: cannot be read ({why}); a text is quoted twice, once for the shell: '{key}=\"{value}\"'"


def group_names() -> list[str]:
    """The groups of conf/ whose YAMLs are chosen by name alone."""
    others = (*FILE_GROUPS, *NO_GROUPS)
    return [path.name for path in config_dir().iterdir() if path.is_dir() and path.name not in others]


@cache
def known_keys() -> list[str]:
    """Everything that can be set: the groups of conf/, and the config paths."""
    return [*group_names(), *FILE_GROUPS, *flatten(to_dict(EVERY))]
