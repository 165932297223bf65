"""The schema of conf/ and sweeps/ as frozen dataclasses.

Everything below the command line takes these dataclasses, so that it can be called from a notebook or a test without
Hydra; `compose` makes them out of conf/ and overrides.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_experiments.errors import UserError

# Optional[...] and not `X | None`: OmegaConf 2.3 reads the annotations of structured configs.
# ruff: noqa: UP045


@dataclass(frozen=True)
class DataConfig:
    """What is classified: where the faces come from, which classes, how they are cleaned and split.

    path: a file or folder; None looks at $FER2013, then data/fer2013*. `source` names the origin in a backbone's
    `seen`. `emotions` says what the source's labels or class folders mean ({1: surprise, 2: fear}), None leaves it to
    their names, and to FER2013's numbers where that is the source. `classes` groups emotions, None makes every emotion
    a class. `clean` is "all", "none" or a list out of constant, conflicting, duplicates. `limit` keeps that many images
    of each split, stratified by class.
    """

    name: str = MISSING
    task: str = MISSING
    source: str = "fer2013"
    path: Optional[str] = None
    emotions: Any = None  # {label: emotion}; YAML reads the labels 1 and true as no text, which they become
    classes: Optional[dict[str, list[str]]] = None
    split: str = "official"  # official | stratified | kfold
    fractions: list[float] = field(default_factory=lambda: [0.6, 0.2, 0.2])  # of stratified: train, val, test
    folds: int = 5
    fold: int = 0
    balance: str = "none"  # none | undersample | class_weight
    per_class: Optional[int] = None
    clean: Any = "all"
    limit: Optional[int] = None
    seed: int = 0
    demo_size: int = 6000  # number of drawn faces of data=demo

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
    kind: str = MISSING
    architecture: Optional[str] = None
    weights: Optional[str] = None
    input_size: int = 139
    channels: int = 3
    scaling: Any = "keras"
    layers: list[str] = field(default_factory=list)
    pooling: str = "none"
    seen: list[str] = field(default_factory=list)
    seed: int = 0


@dataclass(frozen=True)
class FeaturesConfig:
    """How features are computed and stored. views: original, flip. dtype: float16 | float32. Sizes are in images.

    precision: of the forward pass, float32 | bfloat16: faster where the CPU has AVX512_BF16, features a percent off.
    """

    views: list[str] = field(default_factory=lambda: ["original"])
    dtype: str = "float16"
    precision: str = "float32"
    batch_size: int = 64
    shard_size: int = 1024


@dataclass(frozen=True)
class HeadConfig:
    """The part that is trained. normalize standardises features with the mean and deviation of the training split."""

    name: str = MISSING
    l2: float = 1e-3
    dense_widths: list[int] = field(default_factory=list)
    dropout: float = 0.5
    filters: list[int] = field(default_factory=list)
    normalize: bool = False


@dataclass(frozen=True)
class TrainingConfig:
    """How a head is fitted. monitor: val_loss | val_accuracy; precision: float32 | mixed_bfloat16."""

    learning_rate: float = 1e-3
    batch_size: int = 128
    epochs: int = 50
    patience: int = 10
    monitor: str = "val_loss"
    optimizer: str = "adam"  # adam | adamw | sgd
    precision: str = "float32"
    seed: int = 0
    deterministic: bool = False
    smoke: bool = False


@dataclass(frozen=True)
class TrackingConfig:
    """Where runs are recorded. uri: None is mlflow.db under paths.mlruns.

    credentials: a file with a server's user and password, for when MLFLOW_TRACKING_USERNAME is not set.
    """

    uri: Optional[str] = None
    credentials: Optional[str] = None
    system_metrics: bool = True


@dataclass(frozen=True)
class ComputeConfig:
    """Where trials run: one after another in this process, in worker processes, or on a Ray cluster.

    workers: trials at once; None: as many as the GPUs, or the cores, allow. gpus_per_trial: 0.5 lets two trials share a
    GPU. address: of a running Ray cluster, "auto" or host:port; None starts one on this machine.
    """

    name: str = "inline"  # inline | processes | ray
    workers: Optional[int] = None
    gpus_per_trial: float = 0.0
    cpus_per_trial: int = 1
    address: Optional[str] = None


@dataclass(frozen=True)
class PathsConfig:
    """Folders, relative to the project's root: everything recorded, and everything that can be computed again."""

    mlruns: str = "mlruns"
    cache: str = "cache"


@dataclass(frozen=True)
class SweepConfig:
    """What is searched. space: config path -> {type, min, max, sampling, step, values}; see sweeps/.

    It ends with max_trials trials, after max_hours (trials in flight are finished), or when the objective reaches
    target. max_trial_minutes ends a fit, which keeps its best epoch. pruner: median ends a fit whose best epoch is
    worse than the median of the other trials at that epoch.
    """

    name: str = MISSING
    oracle: str = "random"  # random | bayesian | tpe | hyperband | grid
    objective: str = "final/val_accuracy"
    direction: str = "max"
    max_trials: Optional[int] = 10  # None: as many as the oracle makes (grid, hyperband)
    max_hours: Optional[float] = None
    max_trial_minutes: Optional[float] = None
    target: Optional[float] = None
    pruner: str = "none"  # none | median
    seed: int = 0
    fresh: bool = False
    retry_failed: bool = False  # runs failed trials again
    max_epochs: int = 20  # hyperband
    factor: int = 3  # hyperband
    space: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PretrainConfig:
    """The recipe of the pocket backbone, trained from scratch; see `augment` and `pocket`.

    widths, blocks: filters and residual blocks of each stage. ema: decay of the averaged weights a step. The largest
    augmentations, where 0 turns one off: shift (share of the side), rotation (degrees), zoom (share), gamma (log of the
    exponent), erasing (share of the image).
    """

    name: str = MISSING
    widths: list[int] = field(default_factory=lambda: [48, 96, 160])
    blocks: list[int] = field(default_factory=lambda: [1, 2, 2])
    epochs: int = 60
    batch_size: int = 128
    learning_rate: float = 2e-3
    warmup_epochs: int = 2
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    dropout: float = 0.3
    shift: float = 0.1
    rotation: float = 15.0
    zoom: float = 0.15
    gamma: float = 0.4
    erasing: float = 0.25
    ema: float = 0.999
    precision: str = "mixed_bfloat16"
    seed: int = 0
    output: Optional[str] = None  # where the float16 weights are written; None: into the run only
    open_test: bool = False  # score PrivateTest once, recorded as an opening of the test split


@dataclass(frozen=True)
class PromoteConfig:
    """How the model to register is chosen: the `top_k` best configs of a sweep, each fitted with `seeds` seeds.

    dry_run: everything but the registration. resamples: of the bootstrap. note: a sentence for the model card.
    """

    name: str = MISSING
    top_k: int = 3
    seeds: int = 3
    resamples: int = 2000
    dry_run: bool = False
    note: str = ""


@dataclass(frozen=True)
class GateConfig:
    """What a model must hold on the test split before it is registered.

    floors, ceilings: metric -> limit, out of `bootstrap.evaluate`. recall: the least recall of each class, by name; the
    key "every" is for those that are not named. compare: with the champion, none, mcnemar (exact) or bootstrap (paired,
    of `metric`); worse with p < alpha is refused. max_mb: of the model's files, in 10^6 bytes. max_latency_ms: the
    median for one image on this machine.
    """

    name: str = MISSING
    floors: dict[str, float] = field(default_factory=dict)
    ceilings: dict[str, float] = field(default_factory=dict)
    recall: dict[str, float] = field(default_factory=dict)
    compare: str = "mcnemar"  # none | mcnemar | bootstrap
    metric: str = "accuracy"
    alpha: float = 0.05
    max_mb: Optional[float] = None
    max_latency_ms: Optional[float] = None


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


# What a config may say, checked before anything heavy is imported.
CHOICES: dict[str, tuple[str, ...]] = {
    "data.split": ("official", "stratified", "kfold"),
    "data.balance": ("none", "undersample", "class_weight"),
    "backbone.kind": ("application", "keras_file", "pocket"),
    "backbone.pooling": ("none", "avg", "max"),
    "features.dtype": ("float16", "float32"),
    "features.precision": ("float32", "bfloat16"),
    "training.monitor": ("val_loss", "val_accuracy"),
    "training.optimizer": ("adam", "adamw", "sgd"),
    "training.precision": ("float32", "mixed_bfloat16"),
    "sweep.oracle": ("random", "bayesian", "tpe", "hyperband", "grid"),
    "sweep.direction": ("max", "min"),
    "sweep.pruner": ("none", "median"),
    "compute.name": ("inline", "processes", "ray"),
    "gate.compare": ("none", "mcnemar", "bootstrap"),
}
POSITIVE = (
    "training.learning_rate",
    "training.batch_size",
    "training.epochs",
    "features.batch_size",
    "features.shard_size",
    "backbone.input_size",
    "data.demo_size",
    "sweep.max_trials",
    "sweep.max_epochs",
    "sweep.max_hours",
    "sweep.max_trial_minutes",
    "compute.workers",
    "compute.cpus_per_trial",
    "promote.top_k",
    "promote.seeds",
    "promote.resamples",
    "gate.max_mb",
    "gate.max_latency_ms",
)
SPATIAL_HEADS = ("paper", "conv")  # need a map, not pooled features


def project_root() -> Path:
    """The checkout that holds this package, or the current folder when the package is installed from a wheel."""
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "conf" / "config.yaml").is_file() else Path.cwd()


def _shipped(folder: str) -> Path:
    """conf/ or sweeps/: the checkout's own, else the copy inside the wheel."""
    in_checkout = Path(__file__).resolve().parents[1] / folder
    return in_checkout if in_checkout.is_dir() else Path(__file__).resolve().parent / folder


def config_dir() -> Path:
    """The folder conf/."""
    return _shipped("conf")


def sweeps_dir() -> Path:
    """The folder sweeps/."""
    return _shipped("sweeps")


def mlruns_dir(config: Config) -> Path:
    """paths.mlruns as an absolute path."""
    return (project_root() / config.paths.mlruns).resolve()


def cache_dir(config: Config) -> Path:
    """paths.cache as an absolute path."""
    return (project_root() / config.paths.cache).resolve()


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


def check(config: Config) -> None:
    """Refuses values that no room could use.

    Raises:
        UserError: naming the key, its value and what it may be.
    """
    flat = flatten(to_dict(config))
    for path, options in CHOICES.items():
        if path in flat and flat[path] not in options:
            raise UserError(f"{path}={flat[path]}: choose one of {', '.join(options)}")
    for path in POSITIVE:
        if path in flat and flat[path] is not None and not flat[path] > 0:
            raise UserError(f"{path}={flat[path]}: must be greater than 0")
    emotions = config.data.emotions
    if emotions is not None and not (
        isinstance(emotions, Mapping) and all(isinstance(e, str) for e in emotions.values())
    ):
        raise UserError(f"data.emotions={emotions}: must say what labels mean, as {{1: surprise, 2: fear}}, or be null")
    if not config.features.views or not set(config.features.views) <= {"original", "flip"}:
        raise UserError(f"features.views={config.features.views}: a list out of original and flip, not empty")
    if config.head.name in SPATIAL_HEADS and config.backbone.pooling != "none":
        raise UserError(f"head={config.head.name} needs a spatial map: set backbone.pooling=none, or take head=pooled")
    if not 0 <= config.head.dropout < 1:
        raise UserError(f"head.dropout={config.head.dropout}: must be at least 0 and less than 1")
    if config.compute.gpus_per_trial < 0:
        raise UserError(f"compute.gpus_per_trial={config.compute.gpus_per_trial}: must not be negative")
    if config.sweep and (config.sweep.oracle, config.sweep.pruner) == ("hyperband", "median"):
        raise UserError("sweep.pruner=median: hyperband ends hopeless trials itself; say sweep.pruner=none")
    if config.head.l2 < 0:
        raise UserError(f"head.l2={config.head.l2}: must not be negative")


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
    lines = str(error).splitlines() or [type(error).__name__]
    key = getattr(error, "full_key", None)
    return f"{key}: {lines[0]}" if key else lines[0]
