"""The schema of conf/ and sweeps/ as frozen dataclasses; each field says what it may be.

Everything below the command line takes these dataclasses, so that it can be called from a notebook or a test without
Hydra; `compose` makes them out of conf/ and overrides.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_experiments.errors import UserError, first_line

# Optional[...] and not `X | None`: OmegaConf 2.3 reads the annotations of structured configs. `number` makes a field.
# ruff: noqa: UP045, RUF009

SEED = 2**32 - 1  # the largest that NumPy takes


def choice(default: str | int, *choices: str | int) -> Any:
    """A field that is one of the choices."""
    return field(default=default, metadata={"choices": choices})


def number(
    default: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> Any:
    """A field with bounds, which hold for each number of a list; see `checks`."""
    metadata = {"above": above, "least": least, "below": below, "most": most}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def literal(default: str | None, *, several: bool = True) -> Any:
    """A field whose value is taken from a command line as it stands, a path or an address; see `overrides`.

    several: in a multirun a comma parts two of them.
    """
    return field(default=default, metadata={"literal": True, "several": several})


@dataclass(frozen=True)
class DataConfig:
    """What is classified: where the faces come from, which classes, how they are cleaned and split.

    path: a file or folder; None looks at $FER2013, then data/fer2013*. `source` names the origin in a backbone's
    `seen`. `emotions` says what the source's labels or class folders mean ({1: surprise, 2: fear}), None leaves it to
    their names, and to FER2013's numbers where that is the source. `classes` groups emotions, None makes every emotion
    a class. `clean` is "all", "none" or a list out of constant, conflicting, duplicates, near_twins. `limit` keeps that
    many images of each split, stratified by class.
    """

    name: str = MISSING
    task: str = MISSING
    source: str = "fer2013"
    path: Optional[str] = literal(None)
    emotions: Any = None  # {label: emotion}; YAML reads the labels 1 and true as no text, which they become
    classes: Optional[dict[str, list[str]]] = None
    split: str = choice("official", "official", "stratified", "kfold")
    fractions: list[float] = number([0.6, 0.2, 0.2], above=0, below=1)  # of stratified: train, val, test
    folds: int = number(5, least=2)
    fold: int = number(0, least=0)
    balance: str = choice("none", "none", "undersample", "class_weight")
    per_class: Optional[int] = number(None, above=0)
    clean: Any = "all"
    limit: Optional[int] = number(None, above=0)
    seed: int = number(0, least=0)
    demo_size: int = number(6000, above=0)  # number of drawn faces of data=demo

    def __post_init__(self) -> None:
        if isinstance(self.emotions, Mapping):
            object.__setattr__(self, "emotions", {str(said): emotion for said, emotion in self.emotions.items()})


@dataclass(frozen=True)
class BackboneConfig:
    """A frozen network up to one or several cut layers.

    kind: application (a class of keras.applications, `architecture`), keras_file (any .keras file) or pocket.
    weights: "imagenet", "embedded" (pocket), a path, or None for random weights drawn with `seed`.
    scaling: "keras" (the application's own preprocess_input), "raw255", or {mean: m, scale: s} for (x - m) / s.
    layers: names of the cut layers; empty is the network's output. pooling: none | avg | max.
    seen: what its weights were trained on with labels, as <data.source>/<usage>; evaluating on that is refused.
    """

    name: str = MISSING
    kind: str = choice(MISSING, "application", "keras_file", "pocket")
    architecture: Optional[str] = None
    weights: Optional[str] = literal(None)
    input_size: int = number(139, above=0)
    channels: int = choice(3, 1, 3)
    scaling: Any = "keras"
    layers: list[str] = field(default_factory=list)
    pooling: str = choice("none", "none", "avg", "max")
    seen: list[str] = field(default_factory=list)
    seed: int = number(0, least=0)


@dataclass(frozen=True)
class FeaturesConfig:
    """How features are computed and stored. views: original, flip. dtype: float16 | float32. Sizes are in images.

    precision: of the forward pass, float32 | bfloat16: faster where the CPU has AVX512_BF16, features a percent off.
    """

    views: list[str] = field(default_factory=lambda: ["original"])
    dtype: str = choice("float16", "float16", "float32")
    precision: str = choice("float32", "float32", "bfloat16")
    batch_size: int = number(64, above=0)
    shard_size: int = number(1024, above=0)


@dataclass(frozen=True)
class HeadConfig:
    """The part that is trained. normalize standardises features with the mean and deviation of the training split."""

    name: str = MISSING
    l2: float = number(1e-3, least=0)
    dense_widths: list[int] = number([], above=0)
    dropout: float = number(0.5, least=0, below=1)
    filters: list[int] = number([], above=0)
    normalize: bool = False


@dataclass(frozen=True)
class TrainingConfig:
    """How a head is fitted. monitor: val_loss | val_accuracy; precision: float32 | mixed_bfloat16."""

    learning_rate: float = number(1e-3, above=0)
    batch_size: int = number(128, above=0)
    epochs: int = number(50, above=0)
    patience: int = number(10, least=0)
    monitor: str = choice("val_loss", "val_loss", "val_accuracy")
    optimizer: str = choice("adam", "adam", "adamw", "sgd")
    precision: str = choice("float32", "float32", "mixed_bfloat16")
    seed: int = number(0, least=0, most=SEED)
    deterministic: bool = False
    smoke: bool = False


@dataclass(frozen=True)
class TrackingConfig:
    """Where runs are recorded. uri: None is mlflow.db under paths.mlruns.

    credentials: a file with a server's user and password, for when MLFLOW_TRACKING_USERNAME is not set.
    """

    uri: Optional[str] = literal(None)
    credentials: Optional[str] = literal(None)
    system_metrics: bool = True


@dataclass(frozen=True)
class ComputeConfig:
    """Where trials run: one after another in this process, in worker processes, or on a Ray cluster.

    workers: trials at once; None: as many as the GPUs, or the cores, allow. gpus_per_trial: 0.5 lets two trials share a
    GPU. address: of a running Ray cluster, "auto" or host:port; None starts one on this machine.
    """

    name: str = choice("inline", "inline", "processes", "ray")
    workers: Optional[int] = number(None, above=0)
    gpus_per_trial: float = number(0.0, least=0)
    cpus_per_trial: int = number(1, above=0)
    address: Optional[str] = literal(None)


@dataclass(frozen=True)
class PathsConfig:
    """Folders, relative to the project's root: everything recorded, and everything that can be computed again."""

    mlruns: str = literal("mlruns")
    cache: str = literal("cache")


@dataclass(frozen=True)
class SweepConfig:
    """What is searched. space: config path -> {type, min, max, sampling, step, values}; see sweeps/.

    It ends with max_trials trials, after max_hours (trials in flight are finished), or when the objective reaches
    target. max_trial_minutes ends a fit, which keeps its best epoch. pruner: median ends a fit whose best epoch is
    worse than the median of the other trials at that epoch.
    """

    name: str = MISSING
    oracle: str = choice("random", "random", "bayesian", "tpe", "hyperband", "grid")
    objective: str = "final/val_accuracy"
    direction: str = choice("max", "max", "min")
    max_trials: Optional[int] = number(10, above=0)  # None: as many as the oracle makes (grid, hyperband)
    max_hours: Optional[float] = number(None, above=0)
    max_trial_minutes: Optional[float] = number(None, above=0)
    target: Optional[float] = None
    pruner: str = choice("none", "none", "median")
    seed: int = number(0, least=0)
    fresh: bool = False
    retry_failed: bool = False  # runs failed trials again
    max_epochs: int = number(20, above=0)  # hyperband
    factor: int = number(3, least=2)  # hyperband
    space: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PretrainConfig:
    """The recipe of the pocket backbone, trained from scratch; see `augment` and `pocket`.

    widths, blocks: filters and residual blocks of each stage. ema: decay of the averaged weights a step. The largest
    augmentations, where 0 turns one off: shift (share of the side), rotation (degrees), zoom (share), gamma (log of the
    exponent), erasing (share of the image).
    """

    name: str = MISSING
    widths: list[int] = number([48, 96, 160], above=0)
    blocks: list[int] = number([1, 2, 2], above=0)
    epochs: int = number(60, above=0)
    batch_size: int = number(128, above=0)
    learning_rate: float = number(2e-3, above=0)
    warmup_epochs: int = number(2, least=0)
    weight_decay: float = number(0.05, least=0)
    label_smoothing: float = number(0.1, least=0, below=1)
    dropout: float = number(0.3, least=0, below=1)
    shift: float = number(0.1, least=0, most=1)
    rotation: float = number(15.0, least=0, most=180)
    zoom: float = number(0.15, least=0, below=1)
    gamma: float = number(0.4, least=0)
    erasing: float = number(0.25, least=0, most=1)
    ema: float = number(0.999, least=0, below=1)
    precision: str = choice("mixed_bfloat16", "float32", "mixed_bfloat16")
    seed: int = number(0, least=0, most=SEED)
    output: Optional[str] = literal(None)  # where the float16 weights are written; None: into the run only
    open_test: bool = False  # score PrivateTest once, recorded as an opening of the test split


@dataclass(frozen=True)
class PromoteConfig:
    """How the model to register is chosen: the `top_k` best configs of a sweep, each fitted with `seeds` seeds.

    dry_run: everything but the registration. resamples: of the bootstrap. note: a sentence for the model card.
    """

    name: str = MISSING
    top_k: int = number(3, above=0)
    seeds: int = number(3, above=0)
    resamples: int = number(2000, above=0)
    dry_run: bool = False
    note: str = literal("", several=False)


@dataclass(frozen=True)
class GateConfig:
    """What a model must hold on the test split before it is registered.

    floors, ceilings: metric -> limit, out of `metrics.METRICS`. recall: the least recall of each class, by name; the
    key "every" is for those that are not named. compare: with the champion, none, mcnemar (exact) or bootstrap (paired,
    of `metric`); worse with p < alpha is refused. max_mb: of the model's files, in 10^6 bytes. max_latency_ms: the
    median for one image on this machine.
    """

    name: str = MISSING
    floors: dict[str, float] = field(default_factory=dict)
    ceilings: dict[str, float] = field(default_factory=dict)
    recall: dict[str, float] = field(default_factory=dict)
    compare: str = choice("mcnemar", "none", "mcnemar", "bootstrap")
    metric: str = "accuracy"
    alpha: float = number(0.05, above=0, below=1)
    max_mb: Optional[float] = number(None, above=0)
    max_latency_ms: Optional[float] = number(None, above=0)


@dataclass(frozen=True)
class Config:
    """One experiment."""

    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    sweep: Optional[SweepConfig] = None
    pretrain: Optional[PretrainConfig] = None
    promote: Optional[PromoteConfig] = None
    gate: Optional[GateConfig] = None


def to_dict(config: Config) -> dict[str, Any]:
    """The resolved config as plain containers, sections that are not in use left out."""
    container = OmegaConf.to_container(OmegaConf.structured(config), resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items() if value is not None}


def to_yaml(container: Mapping[str, Any]) -> str:
    """A config's plain containers as YAML that `experiment=<file>` takes."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(container)))


def from_dict(container: Mapping[str, Any]) -> Config:
    """The inverse of `to_dict`, checked against the schema."""
    try:
        config = OmegaConf.to_object(OmegaConf.merge(schema(), OmegaConf.create(dict(container))))
    except OmegaConfBaseException as error:
        raise UserError(one_line(error)) from error
    assert isinstance(config, Config)
    return config


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
    return from_dict(container)


def schema() -> DictConfig:
    """The dataclasses as an OmegaConf schema that values can be merged into."""

    def writable(node: Any) -> None:
        # OmegaConf makes a frozen dataclass read-only, the schema of a merge too.
        if isinstance(node, DictConfig):
            OmegaConf.set_readonly(node, None)
            for key in node:
                if not OmegaConf.is_missing(node, key):
                    writable(node._get_node(key))

    node = OmegaConf.structured(Config)
    writable(node)
    return node


def close(name: str, known: Iterable[str]) -> str:
    """The known names that look like `name`, as the end of an error message."""
    matches = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def one_line(error: BaseException) -> str:
    """The first line of an OmegaConf error and the key it is about."""
    key = getattr(error, "full_key", None)
    return f"{key}: {first_line(error)}" if key else first_line(error)
