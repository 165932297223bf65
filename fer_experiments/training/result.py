"""What a training gives, whatever was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class TrainingResult:
    """A trained model, with the weights of its best epoch, and how it came about.

    history: a row an epoch, columns train/loss, train/accuracy, val/loss, val/accuracy, learning_rate.
    val_probabilities: float32 [val images, classes] of the model. seconds: of all epochs together.
    """

    model: keras.Model
    history: pd.DataFrame
    best_epoch: int
    val_probabilities: np.ndarray
    seconds: float
