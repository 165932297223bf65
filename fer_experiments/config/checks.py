"""What the values of a config may be. Imports nothing heavy; a config of a search space is checked the same way."""

from __future__ import annotations

import math
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING

from fer_experiments.config.folders import expanded, options, yaml_of
from fer_experiments.config.plain import close
from fer_experiments.config.schema import (
    ALL_FOLDS,
    TRAIN_VAL,
    USAGES,
    BackboneConfig,
    ComputeConfig,
    Config,
    DataConfig,
    GateConfig,
)
from fer_experiments.config.training import AUGMENTATIONS, TrainingConfig
from fer_experiments.errors import EMPTY, UserError

INTEGER, FLOAT = 2**32 - 1, 3e38  # the largest seed; about the largest float32
NAME = re.compile(r"\w[\w .+,=@()-]{0,59}|" + re.escape(MISSING))


def check(config: Config) -> None:
    """Refuses values that no room could use: those that their field does not allow, and those that contradict others.

    Raises:
        UserError: naming the key, its value and what it may be.
    """
    for section in fields(config):
        value = getattr(config, section.name)
        if value is not None:
            _check_fields(section.name, value)
    check_data(config.data)
    _check_training(config.training, config.backbone)
    if config.training.unfreeze is not None and config.data.fold == ALL_FOLDS:
        raise UserError("training=finetune: is of one network; say data.fold=<number>, or leave it out")
    _check_backbone(config.backbone)
    _check_seen(config.backbone.seen, config.data.source)
    if config.head.spatial and config.backbone.pooling not in ("none", "map"):
        own = "map, or none where the preset gives a map," if config.backbone.kind == "keras_hub" else "none,"
        raise UserError(f"head={config.head.name} needs a spatial map: set backbone.pooling={own} or take head=pooled")
    each = config.compute.gpus_per_trial
    if each > 1 and each != int(each):
        raise UserError(f"compute.gpus_per_trial={each}: must be a whole number, or less than 1 to share a GPU")
    chosen = config.promote
    if chosen and chosen.ensemble != "none" and getattr(chosen, chosen.ensemble) < 2:
        raise UserError(
            f"promote.ensemble={chosen.ensemble}: it takes two heads; set promote.{chosen.ensemble} above 1"
        )
    if chosen and chosen.refit == TRAIN_VAL and config.training.unfreeze is not None:
        raise UserError(
            f"promote.refit={chosen.refit}: training=finetune keeps its best epoch on the validation split; leave out "
            "promote.refit"
        )
    if chosen and chosen.refit == TRAIN_VAL and config.data.per_class and config.data.split != "stratified":
        raise UserError(
            f"promote.refit={chosen.refit}: data.per_class={config.data.per_class} is of training images, and "
            "the epochs are those for so many; leave out promote.refit"
        )
    if config.sweep and config.sweep.on_end:
        words_of(config.sweep.on_end)
    if config.sweep:
        kept_of(config.sweep.keep)
    recipe = config.pretrain
    if recipe and (len(recipe.widths) != len(recipe.blocks) or not recipe.widths):
        raise UserError(f"pretrain.widths={recipe.widths}, pretrain.blocks={recipe.blocks}: one number a stage in each")


def check_effect(path: str, config: Config) -> None:
    """Refuses to give, or to search, what changes nothing of this config.

    Raises:
        UserError: naming the key and the remedy.
    """
    section, _, key = path.rpartition(".")
    if section == "training.finetune" and key in AUGMENTATIONS and config.training.from_features:
        raise UserError(
            f"{path}: training.from_features=true augments by features.views alone; leave it out, or say "
            "training.from_features=false"
        )
    gate = config.gate
    if gate and path == "gate.metric" and gate.compare != "bootstrap" and gate.metric != GateConfig.metric:
        raise UserError(
            f"{path}: gate.compare={gate.compare} has no use for it; say gate.compare=bootstrap too, or leave it out"
        )
    if (
        gate
        and gate.compare == "none"
        and (
            (path == "gate.alpha" and gate.alpha != GateConfig().alpha)
            or (path.startswith("gate.worse") and gate.worse)
        )
    ):
        raise UserError(
            f"{path}: gate.compare=none compares with no champion; say gate.compare=mcnemar too, or leave it out"
        )
    if section == "compute" and getattr(config.compute, key, None) != getattr(ComputeConfig(), key, None):
        users = [name for name in options("compute") if key in yaml_of("compute", name)]
        if key != "name" and config.compute.name not in users:
            others = " or ".join(f"compute={name}" for name in users)
            raise UserError(f"{path}: compute={config.compute.name} has no use for it; leave it out, or say {others}")


def kept_of(keep: str, key: str = "sweep.keep") -> int | None:
    """How many trials' heads sweep.keep keeps, the best ones'; None for all.

    Raises:
        UserError: it says something else.
    """
    found = re.fullmatch("all|none|best:([1-9][0-9]{0,8})", keep)
    if found is None:
        raise UserError(f"{key}={keep}: must be all, none, or best:<how many>, such as best:5")
    return None if keep == "all" else int(found[1] or 0)


def words_of(command: str) -> list[str]:
    """The words of sweep.on_end, parted as a shell would, the first of them the program's path.

    Raises:
        UserError: there is no such program here, or a quote does not end.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"sweep.on_end={command}: {str(error).lower()}") from error
    program = shutil.which(expanded(words[0], "sweep.on_end")) if words else None
    if program is None:
        raise UserError(f"sweep.on_end={command}: no such command here; name one on the PATH, or an executable file")
    return [program, *words[1:]]


def check_data(data: DataConfig) -> None:
    """Refuses settings that no data can satisfy.

    Raises:
        UserError: naming the key and what it may be.
    """
    _check_fields("data", data)
    if len(data.fractions) != 3 or abs(sum(data.fractions) - 1) > 1e-6:
        raise UserError(f"data.fractions={data.fractions}: must be three shares that sum to 1 (train, val, test)")
    emotions = data.emotions
    if emotions is not None and not (isinstance(emotions, dict) and all(isinstance(e, str) for e in emotions.values())):
        raise UserError(f"data.emotions={emotions}: must say what labels mean, as {{1: surprise, 2: fear}}, or be null")
    if data.source == "demo" and (given := [key for key in ("path", "emotions") if getattr(data, key) is not None]):
        raise UserError(
            f"data.{given[0]}={getattr(data, given[0])}: data=demo draws its faces; leave out data.{given[0]}"
        )
    if data.task == "demo" and data.source != "demo":
        raise UserError("data.task=demo: is of drawn faces; say data=demo, or name the task otherwise")
    if data.fold != ALL_FOLDS and (type(data.fold) is not int or data.fold >= data.folds):
        raise UserError(f"data.fold={data.fold}: must be in 0..{data.folds - 1} (data.folds={data.folds}), or all")
    if data.fold not in (0, ALL_FOLDS) and data.split != "kfold":
        raise UserError(f"data.fold={data.fold}: data.split={data.split} has no folds; say data.split=kfold too")
    if data.fold == ALL_FOLDS and data.split != "kfold":
        raise UserError(f"data.fold=all: data.split={data.split} has no folds; say data.split=kfold, or data.fold=0")
    if data.per_class is not None and data.balance != "undersample":
        raise UserError(f"data.per_class: needs data.balance=undersample, not {data.balance}; change one of them")


def _check_training(training: TrainingConfig, backbone: BackboneConfig) -> None:
    """Refuses half of a fine-tuning, and one of features that no layer goes on from."""
    unfreeze, how = training.unfreeze, training.finetune
    if unfreeze is not None and how is None:
        raise UserError(f"training.unfreeze={unfreeze}: is a key of training=finetune; say that too")
    if how is not None and unfreeze is None:
        raise UserError(
            "training.unfreeze=null: say all, a number of layers, or a layer; or leave out training=finetune"
        )
    if unfreeze is not None and unfreeze.isdecimal() and not re.fullmatch(r"0*[1-9][0-9]{0,8}", unfreeze):
        raise UserError(
            f"training.unfreeze={unfreeze}: say all, a number of layers of at least 1, or the name of a layer"
        )
    if training.from_features and how is None:
        raise UserError("training.from_features=true: is a key of training=finetune; say that too")
    if training.from_features and (len(backbone.layers) != 1 or backbone.pooling != "none"):
        raise UserError(
            f"training.from_features=true: backbone.layers={backbone.layers}, backbone.pooling={backbone.pooling}: it "
            "goes on from the map of one cut layer; say backbone.layers=[<layer>] and backbone.pooling=none"
        )


def _check_backbone(backbone: BackboneConfig) -> None:
    """Refuses a layer twice, what only presets of KerasHub have, of another kind of backbone, and half of a preset."""
    if twice := [layer for layer in dict.fromkeys(backbone.layers) if backbone.layers.count(layer) > 1]:
        raise UserError(f"backbone.layers={list(backbone.layers)}: {twice[0]} is there twice; name each layer once")
    if backbone.kind == "keras_hub":
        if backbone.preset is None:
            raise UserError("backbone.preset=null: say a name, a folder or an address of a preset of KerasHub")
        if backbone.weights not in ("preset", None):
            raise UserError(f"backbone.weights={backbone.weights}: say preset, for its own, or null, for random ones")
        if backbone.interpolation != "bilinear":
            raise UserError(f"backbone.interpolation={backbone.interpolation}: a preset has its own; leave it out")
        return
    if backbone.preset is not None:
        raise UserError(f"backbone.preset={backbone.preset}: is a key of backbone.kind=keras_hub; leave it out")
    if backbone.input_size is None:
        raise UserError("backbone.input_size=null: only a preset of KerasHub has its own; say a number of pixels")
    if backbone.pooling in ("cls", "map"):
        raise UserError(
            f"backbone.pooling={backbone.pooling}: is for tokens, of backbone.kind=keras_hub; say none, avg or max"
        )


def _check_seen(seen: list[str], source: str) -> None:
    """Refuses names of parts that are none, which would protect nothing."""
    for part in seen:
        of, _, usage = part.rpartition("/")
        if not of or usage not in (*USAGES, ""):
            named = of or (source if usage in USAGES else usage)
            parts = ", ".join(f"{named}/{each}" for each in (*USAGES, ""))
            raise UserError(f"backbone.seen={seen}: {part} is no part of a source; say one of {parts}")
        for own in (source, DataConfig.source):  # and the one whose images are known by their pixels
            if of != own and of.casefold() == own.casefold():
                raise UserError(f"backbone.seen={seen}: {of} is {own} but for case; write it so")


def _check_fields(section: str, values: Any) -> None:
    for field in fields(values):
        value = getattr(values, field.name)
        if is_dataclass(value):
            _check_fields(f"{section}.{field.name}", value)
        said = next(_faults(value, field), None)
        flat = str(field.type).startswith("list[")  # of what is no list itself; sweep.enqueue has configs
        if flat and any(isinstance(member, (list, dict)) for member in value):
            said = "each must be one value, no list"
        if said is not None:
            raise UserError(f"{section}.{field.name}={value}: {said}")


def _faults(value: Any, field: Field[Any]) -> Iterator[str]:
    """What is wrong with a value, or with a member of it, in words."""
    if isinstance(value, str) and not value.isascii() and value != value.encode("utf-8", "ignore").decode():
        yield "is no text in UTF-8, which no record can hold; rename the file or folder"
    elif "subset" in field.metadata:
        members, always = field.metadata["subset"], field.metadata["always"]
        texts = [member for member in value if isinstance(member, str)]
        if len(texts) < len(value) or not {always} <= set(texts) <= set(members) or len(set(texts)) < len(texts):
            yield f"a list out of {', '.join(members)}, each once, {always} among them"
    elif isinstance(value, (list, dict)):
        for member in value.values() if isinstance(value, dict) else value:
            yield from (f"each {said}" for said in _faults(member, field))
    elif value == "" and field.default != "":
        yield EMPTY
    elif field.metadata.get("in_paths") and not NAME.fullmatch(value):
        yield "files are called by it: up to 60 letters, digits, spaces and ._+,=@()- in it, a letter or digit first"
    elif "choices" in field.metadata:
        choices = field.metadata["choices"]
        if value not in (*choices, MISSING):
            yield f"choose one of {', '.join(map(str, choices))}"
    elif group := field.metadata.get("options"):
        names = options(group)
        if value not in (*names, MISSING):
            yield f"no such {group}{close(value, names)}; choose one of {', '.join(names)}"
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _out_of_bounds(value, field.metadata)


def _out_of_bounds(value: float, metadata: Any) -> Iterator[str]:
    above, least, below, most = (metadata.get(key) for key in ("above", "least", "below", "most"))
    end = f" and less than {below}" if below is not None else ""
    if not math.isfinite(value):
        yield "must be a finite number"
    if abs(value) > (INTEGER if isinstance(value, int) else FLOAT):
        yield "is larger than any number that makes sense there"
    if above is not None and not value > above:
        yield f"must be greater than {above}{end}"
    if least is not None and not value >= least:
        yield "must not be negative" if least == 0 and below is None else f"must be at least {least}{end}"
    if below is not None and not value < below:
        yield f"must be less than {below}" if least is None else f"must be at least {least}{end}"
    if most is not None and not value <= most:
        yield f"must be at most {most}"
