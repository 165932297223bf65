"""The schema of conf/ and sweeps/ as frozen dataclasses; each field says what it may be and what it is part of.

Everything below the command line takes these dataclasses, so that it can be called from a notebook or a test without
Hydra; `compose` makes them out of conf/ and overrides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from omegaconf import MISSING

from fer_experiments.config.folders import yaml_of
from fer_experiments.config.marks import AUTO, BUDGET, FITTED, PLACE, PREPARED, TASK, choice, given, literal, section
from fer_experiments.config.training import FinetuneConfig, PretrainConfig, TrainingConfig
from fer_experiments.config.views import VIEWS

# Optional[...] and not `X | None`: OmegaConf 2.3 reads the annotations of structured configs. `given` makes a field.
# ruff: noqa: UP045, RUF009

ALL_FOLDS = "all"
TRAIN_VAL = "train+val"
PREFER = ("best", "simple", "fast")
USAGES = ("Training", "PublicTest", "PrivateTest")  # the parts of a source


@dataclass(frozen=True)
class DataConfig:
    """What is classified: where the faces come from, which classes, how they are cleaned and split.

    path: a file or folder; None looks at $FER2013, then data/fer2013*. `source` names the origin in a backbone's
    `seen`. `emotions` says what the source's labels or class folders mean ({1: surprise, 2: fear}), None leaves it to
    their names, and to FER2013's numbers where that is the source. `classes` groups emotions, None makes every emotion
    a class. `clean` is "all", "none" or a list out of constant, conflicting, duplicates, near_twins. `limit` keeps that
    many images of each split, stratified by class.
    """

    name: str = given(MISSING, in_paths=True)
    task: str = given(MISSING, in_paths=True)
    source: str = "fer2013"
    path: Optional[str] = literal(None, part=PLACE)
    emotions: Any = given(None, younger=None)  # YAML reads the labels 1 and true as no text, which they become
    classes: Optional[dict[str, list[str]]] = None
    split: str = choice("official", "official", "stratified", "kfold")
    fractions: list[float] = given([0.6, 0.2, 0.2], above=0, below=1)  # of stratified: train, val, test
    folds: int = given(5, least=2)
    fold: Any = given(0, least=0)  # of kfold: the one that is kept for validation; all: each in turn
    balance: str = choice("none", "none", "undersample", "class_weight", of_training=True)
    per_class: Optional[int] = given(None, above=0, of_training=True)
    clean: Any = "all"
    limit: Optional[int] = given(None, above=0)
    seed: int = given(0, least=0)
    demo_size: int = given(6000, above=0)  # number of drawn faces of data=demo

    def __post_init__(self) -> None:
        if isinstance(self.emotions, Mapping):
            object.__setattr__(self, "emotions", {str(said): emotion for said, emotion in self.emotions.items()})


@dataclass(frozen=True)
class BackboneConfig:
    """A frozen network up to one or several cut layers.

    kind: application (a class of keras.applications, `architecture`), vggface (its ResNet-50), keras_hub (a `preset`:
    its name, a folder, or an address), keras_file (any .keras file) or pocket. layers: to cut at; empty is the output.
    weights: "imagenet", "vggface2", "preset" (its own), "embedded" (pocket), a path, or None: random, drawn by `seed`.
    input_size: None is the preset's own. interpolation: a preset has its own. pooling: of tokens see `hub.of_tokens`.
    scaling: "keras" (the network's own), "raw255", or {mean: m, scale: s} for (x - m) / s.
    seen: what its weights were trained on with labels, as <data.source>/<one of USAGES, or nothing for all of it>;
    evaluating on that is refused.
    """

    name: str = given(MISSING, in_paths=True, fixed="is a label; search the group backbone")
    kind: str = choice(MISSING, "application", "vggface", "keras_hub", "keras_file", "pocket")
    architecture: Optional[str] = None
    preset: Optional[str] = literal(None, younger=None)
    weights: Optional[str] = literal(None)
    input_size: Optional[int] = given(139, above=0)
    channels: int = choice(3, 1, 3)
    interpolation: str = choice("bilinear", "bilinear", "bicubic", younger="bilinear")
    scaling: Any = "keras"
    layers: list[str] = given([])
    pooling: str = choice("none", "none", "avg", "max", "cls", "map")
    seen: list[str] = given([], fixed="declares what the weights have seen, and cannot be tried")
    seed: int = given(0, least=0)


@dataclass(frozen=True)
class FeaturesConfig:
    """How features are computed and stored, of which views of a picture. Sizes are in images.

    engine, precision: of the forward pass; auto is the fastest here, decided once. bfloat16: features a percent off.
    """

    views: list[str] = given(["original"], subset=tuple(VIEWS), always="original")
    dtype: str = choice("float16", "float16", "float32")
    engine: str = choice(AUTO, AUTO, "openvino", "tensorflow", "jax", younger="tensorflow", undecided=AUTO)
    precision: str = choice(AUTO, AUTO, "float32", "bfloat16", undecided=AUTO)
    batch_size: int = given(64, above=0, part=PLACE, fixed="changes how fast features are made, not what they are")
    shard_size: int = given(1024, above=0, part=PLACE, fixed="changes how features are stored, not what they are")


@dataclass(frozen=True)
class HeadConfig:
    """The part that is trained. normalize standardises features with the mean and deviation of the training split.

    spatial: it needs a map, not pooled features; what the YAML of its name says, whatever is given.
    """

    name: str = given(MISSING, options="head")
    l2: float = given(1e-3, least=0)
    dense_widths: list[int] = given([], above=0)
    dropout: float = given(0.5, least=0, below=1)
    filters: list[int] = given([], above=0)
    normalize: bool = False
    spatial: bool = given(False, declared="head")

    def __post_init__(self) -> None:
        object.__setattr__(self, "spatial", bool(yaml_of("head", self.name).get("spatial", False)))


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

    name: str = given("inline", options="compute")
    workers: Optional[int] = given(None, above=0)
    gpus_per_trial: float = given(0.0, least=0)
    cpus_per_trial: int = given(1, above=0)
    address: Optional[str] = literal(None)


@dataclass(frozen=True)
class PathsConfig:
    """Folders, relative to the project's root: everything recorded, and everything that can be computed again."""

    mlruns: str = literal("mlruns")
    cache: str = literal("cache")


@dataclass(frozen=True)
class SweepConfig:
    """What is searched. space: config path -> {type, min, max, sampling, step, values}; see sweeps/.

    It ends with max_trials trials, after max_hours, when the objective reaches target or its best has not moved beyond
    its noise in `patience` trials. max_trial_minutes ends a fit, which keeps its best epoch. pruner: median ends a fit
    whose best epoch is worse than the median of the other trials at that epoch; asha one that is not among the best
    1/factor of those that came to min_epochs, to factor times that, and so on. repeats: fits of a trial, each with its
    seed; the mean is its objective. prefer: what to take of what cannot be told from the best (`search.spread`).
    enqueue: what runs first, a list of {path: value} out of the space, the rest is drawn; or a sweep as <id or
    name>:<how many of its best>. warm_start: id or name of a recorded sweep whose fitting trials the oracle is told.
    """

    name: str = given(MISSING, in_paths=True)
    oracle: str = "random"  # a row of search.space.ORACLES
    objective: str = "final/val_accuracy"
    direction: str = choice("max", "max", "min")
    max_trials: Optional[int] = given(10, above=0, part=BUDGET)  # None: as many as the oracle makes (grid, hyperband)
    max_hours: Optional[float] = given(None, above=0, part=BUDGET)
    max_trial_minutes: Optional[float] = given(None, above=0)
    target: Optional[float] = given(None, part=BUDGET)
    patience: Optional[int] = given(None, above=0, part=BUDGET)
    pruner: str = choice("none", "none", "median", "asha")
    repeats: int = given(1, least=1, younger=1)
    prefer: str = choice("best", *PREFER, part=BUDGET)
    seed: int = given(0, least=0)
    enqueue: Any = given(None, younger=None)
    warm_start: Optional[str] = literal(None, younger=None)
    fresh: bool = given(False, part=BUDGET)
    retry_failed: bool = given(False, part=BUDGET)  # runs failed trials again
    on_end: Optional[str] = literal(None, several=False, part=PLACE)  # told how it ended; typed, in no file
    keep: str = given("all", part=PLACE)  # whose heads: all, none or best:<how many>
    max_epochs: int = given(20, above=0)  # hyperband
    factor: int = given(3, least=2)  # hyperband, asha
    min_epochs: int = given(3, above=0, younger=3)  # asha
    space: dict[str, Any] = given({})


@dataclass(frozen=True)
class PromoteConfig:
    """How the model to register is chosen: the `top_k` best configs of a sweep, each fitted with `seeds` seeds.

    ensemble: whose heads are averaged in it, if they have less log loss on the validation split than the best seed's
    alone: those of the best config's seeds, or of the best seed of each config on the same features. temperature:
    scales its probabilities, fitted on the validation split. abstain: the error among what it answers at most, by a
    threshold found on the validation split. refit: what the heads to register are fitted on; on train+val for as many
    epochs as the best one of the refits on train alone is, in the median, by which all else is chosen. corruptions:
    test images, drawn with a fixed seed, on which it is asked once more with each corruption; 0 asks for none, None
    takes all. dry_run: everything but the registration. resamples: of the bootstrap. note: a line for the card.
    """

    name: str = given(MISSING, options="promote")
    top_k: int = given(3, above=0)
    seeds: int = given(3, above=0)
    resamples: int = given(2000, least=40)  # fewer have no 2.5 % tail
    ensemble: str = choice("none", "none", "seeds", "top_k", younger="none")
    temperature: bool = given(True, younger=False)
    abstain: Optional[float] = given(None, least=0, below=1, younger=None)
    refit: str = choice("train", "train", TRAIN_VAL, younger="train")
    corruptions: Optional[int] = given(500, least=0, younger=0)
    dry_run: bool = False
    note: str = literal("", several=False)


@dataclass(frozen=True)
class GateConfig:
    """What a model must hold on the test split before it is registered.

    floors, ceilings: metric -> limit, out of `metrics.METRICS`. recall: the least recall of each class, by name; the
    key "every" is for those that are not named. slices: the least accuracy on slices and corruptions, by name; "every"
    is for slices that are not named. compare: with the champion, none, mcnemar (exact) or bootstrap (paired, of
    `metric`); worse with p < alpha is refused. worse: by how much the accuracy on slices and corruptions, named as in
    `slices`, may be under the champion's; more with p < alpha over the number of these is refused. max_mb: of the
    model's files, in 10^6 bytes. max_latency_ms: the median for one image on this machine.
    """

    name: str = given(MISSING, options="gate")
    floors: dict[str, float] = given({})
    ceilings: dict[str, float] = given({})
    recall: dict[str, float] = given({}, least=0, most=1)
    slices: dict[str, float] = given({}, least=0, most=1, younger={})
    compare: str = choice("mcnemar", "none", "mcnemar", "bootstrap")
    metric: str = "accuracy"
    alpha: float = given(0.05, above=0, below=1)
    worse: dict[str, float] = given({}, least=0, below=1, younger={})
    max_mb: Optional[float] = given(None, above=0)
    max_latency_ms: Optional[float] = given(None, above=0)


@dataclass(frozen=True)
class Config:
    """One experiment."""

    data: DataConfig = section(DataConfig, PREPARED)
    backbone: BackboneConfig = section(BackboneConfig, PREPARED)
    features: FeaturesConfig = section(FeaturesConfig, PREPARED)
    head: HeadConfig = section(HeadConfig, FITTED)
    training: TrainingConfig = section(TrainingConfig, FITTED)
    tracking: TrackingConfig = section(TrackingConfig, PLACE)
    compute: ComputeConfig = section(ComputeConfig, PLACE)
    paths: PathsConfig = section(PathsConfig, PLACE)
    sweep: Optional[SweepConfig] = given(None, part=TASK)
    pretrain: Optional[PretrainConfig] = given(None, part=TASK)
    promote: Optional[PromoteConfig] = given(None, part=TASK)
    gate: Optional[GateConfig] = given(None, part=TASK)


EVERY = Config(
    training=TrainingConfig(finetune=FinetuneConfig()),
    sweep=SweepConfig(),
    pretrain=PretrainConfig(),
    promote=PromoteConfig(),
    gate=GateConfig(),
)
