"""The part of the schema that says how heads are fitted on features, and whole networks trained on pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from omegaconf import MISSING

from fer_experiments.config.marks import ASIDE, AUTO, choice, given, literal

# Optional[...] and not `X | None`: OmegaConf 2.3 reads the annotations of structured configs. `given` makes a field.
# ruff: noqa: UP045, RUF009

SEED = 2**32 - 1  # the largest that NumPy takes
AUGMENTATIONS = ("flip", "shift", "rotation", "shear", "zoom", "fill", "gamma", "erasing")  # of images, by `augment`


@dataclass(frozen=True)
class PixelsConfig:
    """How a network is trained on pixels, whatever it is; see `pixels` and `augment`.

    optimizer: sgd has a Nesterov momentum of 0.9. schedule: after the warm-up constant, or a cosine down to 0; besides,
    the rate is multiplied with `drop` every drop_epochs, and after drop_patience epochs without a better val/loss, down
    to `floor` at the least. clip_norm: of all gradients together. mixup: both parameters of the beta distribution that
    two images are mixed by (Zhang et al., 2018). ema: decay of the averaged weights a step, which are what is scored
    and kept. The largest augmentations, where 0 turns one off: shift (share of the side), rotation and shear (degrees),
    zoom (share), gamma (log of the exponent), erasing (share of the image). fill: what is beyond an edge.
    """

    epochs: int = given(60, above=0)
    batch_size: int = given(128, above=0)
    optimizer: str = choice("adamw", "adam", "adamw", "sgd", younger="adamw")
    learning_rate: float = given(2e-3, above=0)
    schedule: str = choice("cosine", "constant", "cosine", younger="cosine")
    warmup_epochs: int = given(2, least=0)
    drop: float = given(0.5, above=0, below=1, younger=0.5)
    drop_epochs: Optional[int] = given(None, above=0, younger=None)
    drop_patience: Optional[int] = given(None, above=0, younger=None)
    floor: float = given(1e-6, least=0, younger=1e-6)
    weight_decay: float = given(0.05, least=0)
    clip_norm: Optional[float] = given(None, above=0, younger=None)
    label_smoothing: float = given(0.1, least=0, below=1)
    mixup: float = given(0.0, least=0, younger=0.0)
    ema: float = given(0.999, least=0, below=1)
    flip: bool = given(True, younger=True)
    shift: float = given(0.1, least=0, most=1)
    rotation: float = given(15.0, least=0, most=180)
    shear: float = given(0.0, least=0, most=45, younger=0.0)
    zoom: float = given(0.15, least=0, below=1)
    fill: str = choice("nearest", "nearest", "reflect", younger="nearest")
    gamma: float = given(0.4, least=0)
    erasing: float = given(0.25, least=0, most=1)


@dataclass(frozen=True)
class FinetuneConfig(PixelsConfig):
    """How backbone and head are trained together, after the head alone.

    Precision, seed, deterministic, monitor and patience of `training` hold for both. layer_decay: share of the rate
    that the lowest unfrozen layer learns at; from there it grows geometrically up to the whole rate, the head's.
    batch_norm: the backbone's normalisations learn too; else they stay as they are: statistics, scale and offset.
    """

    layer_decay: float = given(1.0, above=0, most=1)
    batch_norm: bool = False


@dataclass(frozen=True)
class TrainingConfig:
    """How a head is fitted; and, where `unfreeze` says so, how backbone and head are trained together after that.

    unfreeze: all, the number of upper layers of the backbone (of those with weights), or the name of the lowest one.
    from_features: not on pixels, but on stored features: of what is above the only cut layer, which the head is fitted
    on the output of. label_smoothing: share of each label that is spread over all classes; the losses on validation
    images go without. mixup: both parameters of the beta distribution that the features and labels of two rows of a
    batch are mixed by; 0 mixes none.
    """

    learning_rate: float = given(1e-3, above=0)
    batch_size: int = given(128, above=0)
    epochs: int = given(50, above=0)
    patience: int = given(10, least=0)
    monitor: str = choice("val_loss", "val_loss", "val_accuracy")
    optimizer: str = choice("adam", "adam", "adamw", "sgd")
    label_smoothing: float = given(0.0, least=0, below=1, younger=0.0)
    mixup: float = given(0.0, least=0, younger=0.0)
    precision: str = choice(AUTO, AUTO, "float32", "mixed_bfloat16", undecided=AUTO)
    seed: int = given(0, least=0, most=SEED)
    deterministic: bool = given(False, fixed="holds for a whole process, not for a trial in it")
    smoke: bool = given(False, fixed="is for trying a command, not a setting of a fit")
    unfreeze: Optional[str] = given(None, younger=None)
    finetune: Optional[FinetuneConfig] = given(None, younger=None)
    from_features: bool = given(False, younger=False)

    @property
    def on_pixels(self) -> bool:
        """Whether what comes of it is a whole network, and no head on stored features."""
        return self.unfreeze is not None and not self.from_features


@dataclass(frozen=True)
class PretrainConfig(PixelsConfig):
    """The recipe of the pocket backbone, trained from scratch; see `pocket`.

    widths, blocks: filters and residual blocks of each stage.
    """

    name: str = given(MISSING, in_paths=True, part=ASIDE)
    widths: list[int] = given([48, 96, 160], above=0)
    blocks: list[int] = given([1, 2, 2], above=0)
    dropout: float = given(0.3, least=0, below=1)
    precision: str = choice("mixed_bfloat16", "float32", "mixed_bfloat16")
    seed: int = given(0, least=0, most=SEED)
    output: Optional[str] = literal(None, part=ASIDE)  # where the float16 weights are written; None: into the run only
    open_test: bool = given(False, part=ASIDE)  # score PrivateTest once, recorded as an opening of the test split
