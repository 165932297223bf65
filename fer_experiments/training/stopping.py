"""What ends fits early: out of time, or hopeless beside the other trials."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from fer_experiments.evaluation.metrics import scores
from fer_experiments.training.pruning import WARMUP, hopeless


class Deadline(keras.callbacks.Callback):
    """Ends the fit after so many seconds, in the middle of an epoch if need be."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.over = seconds, False
        self.started = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the clock; Keras still validates what the epoch has come to."""
        if time.monotonic() - self.started > self.seconds:
            self.over = self.model.stop_training = True


class Pruning(keras.callbacks.Callback):
    """Ends a fit that is hopeless beside the other trials (see `pruning`); `epoch` is the last one then.

    metric: one of `metrics.METRICS`, of the validation images as they are after each epoch, whose values are the curve.
    labels: of these images.
    """

    def __init__(self, pruner: str, metric: str, labels: np.ndarray, direction: str, limits: Sequence[float]) -> None:
        super().__init__()
        self.pruner, self.metric, self.labels, self.direction, self.limits = pruner, metric, labels, direction, limits
        self.curve: list[float] = []
        self.epoch: int | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compares the curve so far; a fit that ends with this epoch anyway is ended by nothing else."""
        probabilities = (logs or {})["val_probabilities"]
        self.curve.append(scores(self.labels, probabilities, [self.metric])[self.metric])
        ends = self.model.stop_training or epoch + 1 >= self.params["epochs"]
        if not ends and hopeless(self.curve, self.limits, self.direction, WARMUP[self.pruner]):
            self.epoch = epoch
            self.model.stop_training = True


class Ending:
    """What ends the fits of a trial early, which come one after another.

    Its first fit alone is compared with the other trials (pruning), and where it is hopeless no other is begun. Of
    seconds (None: without end) a fit may take an equal share of what those before it have left.
    """

    def __init__(self, pruning: Pruning | None, seconds: float | None, fits: int) -> None:
        self.pruning = pruning
        self.deadlines: list[Deadline] = []
        self.seconds, self._fits, self._started = seconds, fits, time.monotonic()

    def callbacks(self, number: int) -> list[keras.callbacks.Callback] | None:
        """Those of the fit with this number, from 0; None: no more fits."""
        if self.pruning is not None and self.pruning.epoch is not None:
            return None
        made: list[keras.callbacks.Callback] = [self.pruning] if self.pruning is not None and number == 0 else []
        if self.seconds is not None:
            left = self.seconds - (time.monotonic() - self._started)
            self.deadlines.append(Deadline(left / (self._fits - number)))
            made.append(self.deadlines[-1])
        return made
