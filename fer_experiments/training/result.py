"""What a training gives, whatever was trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class TrainingResult:
    """A trained model, with the weights of its best epoch, and how it came about.

    began: the epoch that its last stage began with: of fine-tuning, which comes after the head's.
    history: a row an epoch, columns train/loss, train/accuracy, val/loss, val/accuracy, learning_rate.
    val_probabilities: float32 [val images, classes] of the model. val_labels: int64 [val images]. seconds: of all its
    epochs together.
    """

    model: keras.Model
    history: pd.DataFrame
    best_epoch: int
    val_probabilities: np.ndarray
    val_labels: np.ndarray
    seconds: float
    began: int = field(default=0, kw_only=True)


def trainable_parameters(model: keras.Model) -> int:
    """The number of those that learn."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def averaged(histories: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean of histories by epoch, over the fits that came to it; one alone as it is.

    Of each column its standard deviation is beside it, as <column>_std, nan of a single fit; fits: their number.
    """
    if len(histories) == 1:
        return histories[0]
    epochs = pd.concat(histories).groupby(level=0)
    return epochs.mean().join(epochs.std().add_suffix("_std")).assign(fits=epochs.size())
