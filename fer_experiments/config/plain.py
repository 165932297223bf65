"""Configs as plain containers, YAML and dotted paths, and back."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass, replace
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import AnyNode, BooleanNode, DictConfig, FloatNode, IntegerNode, OmegaConf, StringNode
from omegaconf.errors import OmegaConfBaseException

from fer_experiments.config.folders import HIDDEN, exchanged
from fer_experiments.config.parts import DECLARED_PATHS, YOUNGER
from fer_experiments.config.schema import EVERY, Config
from fer_experiments.errors import UserError, first_line

# Passwords in addresses: of a server as HTTP clients read them, whose port is none; of a database as SQLAlchemy does,
# which takes an @ in a user's name and what would end a host in a password; and in either's query.
IN_FRONT = (
    re.compile(r"(?i)(\bhttps?://[^\s:/?#]*:)(?!\d*(?:[\s/?#'\"]|$))(?:[^\s/?#]*|\S*)@"),
    re.compile(r"((?<![\w+.-])(?!https?:)[\w+.-]+://[^:/]*:)[^@]*(?:@[^@/?]*)*@"),
)
IN_QUERY = re.compile(r"(?i)([?&][^=&]*(?:pass|pwd|token|secret|odbc_connect)[^=&]*=)[^&]*?(?=&|['\"]*$)")
LEAVES = {Any: AnyNode(), bool: BooleanNode(), int: IntegerNode(), float: FloatNode(), str: StringNode()}


def to_dict(config: Config) -> dict[str, Any]:
    """The resolved config as plain containers; without sections that are not in use, and what YAMLs alone say."""
    container = _plain(config, Config)
    for path in DECLARED_PATHS:
        section, key = path.split(".")
        del container[section][key]
    return {name: section for name, section in container.items() if section is not None}


def _plain(value: Any, declared: Any) -> Any:
    """What OmegaConf makes of a value of that type (1 is a float where one is declared), a hundred times faster."""
    inner = get_args(declared) or (Any,)
    if value is None:
        return None
    if get_origin(declared) is Union:  # Optional
        return _plain(value, inner[0])
    if is_dataclass(value):
        return {name: _plain(getattr(value, name), each) for name, each in _annotations(declared).items()}
    if isinstance(value, Mapping):
        return {key: _plain(each, inner[-1]) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, inner[0]) for each in value]
    return value if type(value) is declared else LEAVES[declared].validate_and_convert(value)


_annotations = cache(get_type_hints)


def to_yaml(container: Mapping[str, Any]) -> str:
    """A config's plain containers as YAML that `experiment=<file>` takes."""
    # OmegaConf parses what follows ${, and stops where it is no reference: it never sees one.
    return OmegaConf.to_yaml(OmegaConf.create(exchanged(dict(container), r"\$\{", HIDDEN))).replace(HIDDEN, "${")


def from_dict(container: Mapping[str, Any]) -> Config:
    """The inverse of `to_dict`, checked against the schema; of a record that is older than a key, what was so then."""
    container = dict(container)
    for path, value in YOUNGER.items():
        section, key = path.split(".")
        if section in container and key not in container[section]:
            container[section] = {**container[section], key: value}
    config: Config = _checked(schema(), container)
    return config


def recorded(config: Config) -> dict[str, Any]:
    """What `to_dict` gives, as it may be shown and kept: without the password of a store's address, and a command."""
    container = to_dict(config)
    container.get("sweep", {}).pop("on_end", None)
    if config.tracking.uri:
        container["tracking"]["uri"] = without_password(config.tracking.uri)
    return container


def without_password(uri: str) -> str:
    """A store's address as it may be shown."""
    for pattern in IN_FRONT:
        uri = pattern.sub(r"\1***@", uri)
    return IN_QUERY.sub(r"\1***", uri)


def _checked(schema: DictConfig, container: Mapping[str, Any]) -> Any:
    try:
        return OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.create(literal(dict(container)))))
    except OmegaConfBaseException as error:
        raise UserError(one_line(error)) from error


def literal(value: Any) -> Any:
    """The value, in which OmegaConf finds nothing to resolve: a record must not ask whoever reads it for secrets."""
    return exchanged(value, r"(\\*)\$\{", r"\1\1\\${")


def flatten(container: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted config paths and their values; lists stay whole, and so do data.classes, data.emotions and sweep.space."""
    flat: dict[str, Any] = {}
    for key, value in container.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path not in ("data.classes", "data.emotions", "sweep.space", "backbone.scaling"):
            flat |= flatten(value, f"{path}.")
        else:
            flat[path] = value
    return flat


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with the values at these dotted paths replaced.

    Raises:
        UserError: a path that does not exist (with the close ones), or a value of the wrong type.
    """
    container = to_dict(config)
    known = flatten(container)
    for path, value in values.items():
        if path not in known:
            raise UserError(f"{path}: no such config path{close(path, known)}")
        *sections, key = path.split(".")
        node = container
        for section in sections:
            node = node[section]
        node[key] = value
    touched = {path.partition(".")[0] for path in values}
    changed = {name: section for name, section in container.items() if name in touched}
    return replace(config, **_checked(OmegaConf.masked_copy(schema(every=True), list(changed)), changed))


@cache
def schema(*, every: bool = False) -> DictConfig:
    """The dataclasses as an OmegaConf schema that values can be merged into; every: with the optional sections."""

    def writable(node: Any) -> None:
        # OmegaConf makes a frozen dataclass read-only, the schema of a merge too.
        if isinstance(node, DictConfig):
            OmegaConf.set_readonly(node, None)
            for key in node:
                if not OmegaConf.is_missing(node, key):
                    writable(node._get_node(key))

    node = OmegaConf.structured(EVERY if every else Config)
    writable(node)
    return node


def close(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """The known names that look like `name`, as the end of an error message."""
    matches = difflib.get_close_matches(name, list(known), n=3, cutoff=cutoff)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def one_line(error: BaseException) -> str:
    """The first line of an OmegaConf error and the key it is about."""
    key = getattr(error, "full_key", None)
    return f"{key}: {first_line(error)}" if key else first_line(error)
