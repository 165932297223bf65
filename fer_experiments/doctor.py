"""What this machine has and what is missing, on one screen: `fer doctor`."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from pathlib import Path

from fer_experiments import environment, tracking
from fer_experiments.backbones.hub import how_to_install, is_installed
from fer_experiments.backbones.weights import public_weights, weights_file
from fer_experiments.config import (
    BackboneConfig,
    Config,
    HeadConfig,
    TrainingConfig,
    cache_dir,
    mlruns_dir,
    options,
)
from fer_experiments.config.commands import command, get_data_command, is_checkout
from fer_experiments.config.compose import group_section
from fer_experiments.config.folders import expanded
from fer_experiments.errors import UserError
from fer_experiments.features.engine import decisions
from fer_experiments.terminal import size, table
from fer_experiments.training import precision

PACKAGES = ("tensorflow", "keras", "keras-tuner", "mlflow", "numpy")
LOW_DISK = 5e9  # bytes


def report(config: Config) -> str:
    """Python, backend and devices, CPU, memory, disk, tracking store, FER2013, weights; then the remedies."""
    missing: list[str] = []
    lines = [
        *_software(missing),
        *_machine(config, missing),
        *_disk(config, missing),
        *_store(config, missing),
        *_data(config, missing),
    ]
    text = [f"{name:<10} {value}" for name, value in [*lines, *_weights(missing)]]
    remedies = [f"  - {line}" for line in missing] or ["  nothing"]
    return "\n".join([*text, "", "Missing", *remedies])


def _software(missing: list[str]) -> list[tuple[str, str]]:
    import keras

    if not Path(importlib.util.cache_from_source(keras.__file__)).is_file():
        compile_all = f"{sys.executable} -m compileall -q -j 0 {Path(keras.__file__).parents[1]}"
        missing.append(f"bytecode of the packages: each command compiles all that it imports anew; `{compile_all}`")
    known = environment.versions()
    packages = ", ".join(f"{name} {known.get(name, 'absent')}" for name in PACKAGES)
    return [("Python", f"{platform.python_version()} ({sys.executable})"), ("Packages", packages)]


def _machine(config: Config, missing: list[str]) -> list[tuple[str, str]]:
    import keras

    here = environment.hardware()
    devices = keras.distribution.list_devices()
    backend = keras.backend.backend()
    gpus = [f"{gpu['name']} ({gpu['memory']}, driver {gpu['driver']})" for gpu in here["gpus"]]
    if gpus and not any(device.startswith("gpu") for device in devices):
        install = "make setup" if is_checkout() else "pip install 'fer-experiments[gpu]'"
        missing.append(f"{backend} sees no GPU, but there is one: `{install}`")
    features = here["cpu_features"]
    auto = decisions(config.features)[0]
    heads = {name: precision.decisions(TrainingConfig(), HeadConfig(name=name))[0] for name in options("head")}
    return [
        ("Backend", f"{backend}, devices {', '.join(devices)}"),
        ("GPU", ", ".join(gpus) or "none"),
        ("CPU", f"{here['cpu']}, {here['cores']} cores, {here['memory_gb']} GB memory"),
        ("", " ".join(features) or "no known instruction sets"),
        ("Features", f"features.engine={auto.engine}, features.precision={auto.precision}"),
        ("Heads", ", ".join(f"{name} in {how.precision}" for name, how in heads.items())),
    ]


def _disk(config: Config, missing: list[str]) -> list[tuple[str, str]]:
    lines = []
    for name, folder in (("mlruns", mlruns_dir(config)), ("cache", cache_dir(config))):
        there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
        free = shutil.disk_usage(there).free
        lines.append(("Disk", f"{size(free)} free for {folder}"))
        if free < LOW_DISK:
            missing.append(f"room for {folder}: {size(free)} free; make some, or say paths.{name}=<folder>")
    return lines


def _store(config: Config, missing: list[str]) -> list[tuple[str, str]]:
    try:
        described = tracking.describe(config)
    except UserError as error:
        missing.append(str(error))
        return [("Tracking", "cannot be used")]
    try:
        tracking.check_recordable(config)
    except UserError as error:
        missing.append(str(error))
        described += ", may be looked at only"
    return [("Tracking", described)]


def _data(config: Config, missing: list[str]) -> list[tuple[str, str]]:
    from fer_experiments.data import find_fer2013

    try:
        found = expanded(config.data.path, "data.path") if config.data.path else find_fer2013()
    except UserError as error:
        missing.append(str(error))
        return [("FER2013", "not found")]
    if found and found.exists():
        return [("FER2013" if not config.data.path else "Data", str(found))]
    if config.data.path:
        missing.append(f"data.path={config.data.path}: is not there; name what is, or leave it out for FER2013")
        return [("Data", f"not found: {found}")]
    missing.append(
        f"FER2013: `{get_data_command()}` gets it, or say FER2013=<its zip, csv or folder>; data=demo does without"
    )
    return [("FER2013", "not found ($FER2013, data/fer2013*)")]


def _weights(missing: list[str]) -> list[tuple[str, str]]:
    """A line a backbone of conf/backbone/."""
    texts, public = {}, []
    for name in options("backbone"):
        try:
            backbone = BackboneConfig(**group_section("backbone", name))
            path = weights_file(backbone)
        except UserError as error:
            texts[name] = "cannot be read"
            missing.append(f"conf/backbone/{name}.yaml: {error}")
            continue
        if path is None:
            texts[name] = _without_file(backbone)
        elif path.is_file():
            texts[name] = f"{path} ({path.stat().st_size / 1e6:,.0f} MB)"
        elif found := public_weights(backbone):
            texts[name] = f"not there: {path.name} ({found[1]} MB)"
            public.append(path.parent)
        else:
            texts[name] = "not there"
            made = backbone.weights == "embedded"
            again = f"`{command('pretrain')}` makes them" if made else "say backbone.weights=<file>"
            missing.append(f"weights of backbone={name}: put them at {path}, or {again}")
    if public:
        missing.append(
            f"public weights: downloaded on first use; without network put the files named above into {public[0]}, "
            "or go on without: backbone.weights=null or backbone=pocket"
        )
    return [("" if i else "Weights", line) for i, line in enumerate(table(list(texts.items())).splitlines())]


def _without_file(backbone: BackboneConfig) -> str:
    if backbone.kind == "keras_hub":
        there = (
            "KerasHub downloads it on first use" if is_installed() else f"KerasHub is not installed; {how_to_install()}"
        )
        return f"preset {backbone.preset}: {there}"
    if backbone.weights == "imagenet":
        return "Keras downloads them on first use"
    return "random" if backbone.kind == "application" else "of your own: backbone.weights=<file>"
