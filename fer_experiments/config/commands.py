"""Commands that can be pasted as they stand, from where they are printed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer_experiments.config.folders import options, project_root, yaml_of
from fer_experiments.config.parts import cache_dir, experiment, mlruns_dir
from fer_experiments.config.plain import flatten, from_dict, literal, to_dict, without_password
from fer_experiments.config.schema import Config, DataConfig
from fer_experiments.terminal import shown

GROUPS = ("data", "backbone", "head")


# What Hydra reads as a string without quotes, if it is none of the words after it.
WORD = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+-]*")
# Of a dict's key; whatever else there is, numbers too, Hydra reads as something else, or not at all.
KEY = re.compile(r"[A-Za-z_][ \"$%()*+,\-./0-9:<=>?@A-Z\[\\\]^_`a-z{|}]*")
NO_WORDS = ("null", "true", "false", "nan", "inf", "yes", "no", "on", "off")


def command(*words: str, config: Config | None = None) -> str:
    """A `fer` command for bash, named as it was called.

    Args:
        words: the verb and its arguments, as `fer` is to get them; a config's value comes from `override`.
        config: says where things are recorded and kept; what is not at the default place is named.
    """
    return _joined([*_fer(), *words, *(place(config) if config else [])])


def _joined(words: list[str]) -> str:
    """Words for bash on one line, those that cannot be shown as codes that it reads."""

    def coded(word: str) -> str:
        codes = {c: "".join(f"\\x{byte:02x}" for byte in os.fsencode(c)) for c in word}
        return "".join(c if c.isprintable() and c not in "\\'" else codes[c] for c in word)

    return " ".join(shlex.quote(word) if word.isprintable() else f"$'{coded(word)}'" for word in words)


def override(path: str, value: Any) -> str:
    """An override that Hydra reads as this value at this config path."""
    return f"{path}={written(literal(value))}"


def written(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        if not all(map(_is_hydras, value)):
            return json.dumps(value, ensure_ascii=False)
        return f"{{{','.join(f'{_key(k)}:{written(v)}' for k, v in value.items())}}}"
    if WORD.fullmatch(value) and value.lower() not in NO_WORDS:
        return str(value)
    # Backslashes are escaped before a quote and at the end, and nowhere else (Hydra's grammar).
    escaped = re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + (r"\"" if found[2] else ""), value)
    return f'"{escaped}"'


def _is_hydras(key: str) -> bool:
    """Whether Hydra's grammar can write a dict's key, and reads it as a text; `compose` reads others as YAML."""
    return bool(KEY.fullmatch(key)) and key.lower() not in NO_WORDS


def _key(key: str) -> str:
    """A dict's key, which Hydra takes without quotes alone: what has a meaning in its grammar is escaped."""
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", key)


def place(config: Config) -> list[str]:
    """The overrides that say where a config's store and cache are; none for the default places."""
    said = []
    if config.tracking.uri:
        said = ["tracking=server"] if config.tracking.credentials else []
        said.append(override("tracking.uri", without_password(config.tracking.uri)))
        if config.tracking.credentials not in (None, f"{config.paths.mlruns}/server/credentials"):
            said.append(override("tracking.credentials", config.tracking.credentials))
    for name, folder in (("mlruns", mlruns_dir(config)), ("cache", cache_dir(config))):
        if folder != (project_root() / name).resolve():
            said.append(override(f"paths.{name}", getattr(config.paths, name)))
    return said


def ui_command(config: Config, uri: str) -> str:
    """What shows the runs of a store in a browser: a command, or a server's address."""
    if uri.startswith(("http://", "https://")):
        return uri
    here = is_checkout() and uri == f"sqlite:///{project_root() / 'mlruns' / 'mlflow.db'}"
    return _make("ui") if here else command("ui", config=config)


def mlflow_command(*words: str) -> str:
    """A command of this environment's MLflow."""
    return _joined([_beside_python("mlflow"), *words])


def model_words(data: DataConfig) -> list[str]:
    """The arguments by which predict, serve and rollback know the registered model of this data."""
    known = yaml_of("data", data.name)
    words = [f"data={data.name}"] if known and data.name != "fer2013" else []
    if data.source == "demo":
        return words if known.get("source") == "demo" else [*words, "data.source=demo"]
    return words if known.get("task") == data.task else [*words, override("data.task", data.task)]


def get_data_command() -> str:
    """What brings FER2013 here."""
    return _make("data") if is_checkout() else command("download")


def is_checkout() -> bool:
    """Whether this package runs out of a checkout, which has a Makefile, or was installed."""
    root = project_root()
    return root == Path(__file__).resolve().parents[2] and (root / "Makefile").is_file()


def _make(target: str) -> str:
    here = Path.cwd() == project_root()
    return shlex.join(["make", *([] if here else ["-C", str(project_root())]), target])


def _fer() -> list[str]:
    """`fer`, the way it was called."""
    called = Path(sys.argv[0])
    if called.name == "cli.py":  # python -m fer_experiments.cli
        return [_python(), "-m", "fer_experiments.cli"]
    return [_found(called)] if called.name == "fer" else [_beside_python("fer")]


def _python() -> str:
    return _found(Path(sys.executable))


def _beside_python(name: str) -> str:
    """A command of this environment."""
    path = Path(sys.executable).with_name(name)
    return _found(path) if path.is_file() else name


def _found(path: Path) -> str:
    """A command by its name where the shell finds this one by it, else by its path."""
    path = Path.cwd() / path
    first = shutil.which(path.name)
    if first and Path(first).absolute() == path:  # not samefile: every environment's python is the same file
        return path.name
    typed = shown(path)
    return typed if "/" in typed else f"./{typed}"


def train_command(container: Mapping[str, Any]) -> str:
    """`fer train` with the groups of conf/ and the overrides that compose to this config, recorded where that was.

    Args:
        container: a config as plain containers.

    Raises:
        UserError: keys that this version does not have.
    """
    from fer_experiments.config.compose import compose  # Hydra, which few commands need

    recorded = from_dict(container)
    wanted = flatten(experiment(to_dict(recorded)))
    named = {group: wanted.get(f"{group}.name") for group in GROUPS}
    groups = [f"{g}={name}" for g, name in named.items() if name in options(g)]
    if wanted.get("training.unfreeze") is not None:
        groups.append("training=finetune")
    base = flatten(to_dict(compose(groups)))
    changed = [override(path, value) for path, value in wanted.items() if base.get(path) != value]
    return shlex.join(["fer", "train", *groups, *changed, *place(recorded)])
