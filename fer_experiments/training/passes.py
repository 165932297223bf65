"""A head's passes over stored features as compiled functions, each call many steps long."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from keras import ops

from fer_experiments import termination
from fer_experiments.training import backends
from fer_experiments.training.rows import Rows

CALL = 0.25  # seconds that a call may take: what ends a fit, or this process, comes between calls
AT_ONCE = 512  # rows that are predicted at once
PIECE = 64 * 2**20  # bytes of features that a call takes with it where not all of them are on the device


ACCURACIES = {
    keras.losses.BinaryCrossentropy: keras.metrics.binary_accuracy,
    keras.losses.SparseCategoricalCrossentropy: keras.metrics.sparse_categorical_accuracy,
    keras.losses.CategoricalCrossentropy: keras.metrics.categorical_accuracy,
}


class Passes:
    """The passes of a Keras model of features, which is compiled with a loss and an optimizer."""

    def __init__(self, model: keras.Model) -> None:
        self.model, self._loss, self._right = model, model.loss, ACCURACIES[type(model.loss)]
        self.backend = backends.of_keras()
        model.optimizer.build(model.trainable_variables)
        self._training = self.backend.training(model, self._measure, _mixed)
        self._predicting = self.backend.predicting(model)
        self._steps = 1

    def train(
        self, rows: Rows, others: list[np.ndarray], order: np.ndarray, batch_size: int
    ) -> Generator[dict[str, float]]:
        """Trains on the rows at the places in `order`, batch after batch; after each call, loss and accuracy so far.

        The loss includes the model's penalties. Who stops iterating ends the training there.

        Args:
            rows: of features.
            others: of each row: its label, as the loss takes it; its weight in the loss, float32; and, for mixup, the
                share that it keeps of itself, float32: the rest is from the row as far from the batch's other end.
            order: int32.
            batch_size: in rows; the last batch may be smaller.
        """
        whole = len(order) // batch_size * batch_size
        others = [np.concatenate([array] * len(rows.features.views)) for array in others]
        sums, done = np.zeros(2), 0
        for batches in (order[:whole].reshape(-1, batch_size), order[None, whole:]):
            for arrays, extra, places, start, stop in self._calls(rows, others, batches):
                termination.check()
                begun = time.perf_counter()
                sums += ops.convert_to_numpy(self._training(arrays, extra, places, np.int32(start), np.int32(stop)))
                self._pace(time.perf_counter() - begun)
                done += (stop - start) * batches.shape[1]
                yield {"loss": sums[0] / done, "accuracy": sums[1] / done}

    def predict(self, rows: Rows, view: str = "original") -> np.ndarray:
        """The model's output for all rows in a view, float32 [rows, units]."""
        places = rows.places(view)
        batches = np.resize(places, (-(-len(places) // AT_ONCE), AT_ONCE))  # the last is filled up with others
        parts = [
            ops.convert_to_numpy(self._predicting(arrays, taken))[start:stop]
            for arrays, _, taken, start, stop in self._calls(rows, [], batches, at_once=True)
        ]
        return np.concatenate(parts).reshape(batches.size, -1)[: len(places)]

    def evaluate(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Loss, the model's penalties included, and accuracy of what `predict` gave."""
        plain = type(self._loss)()  # labels that are smoothed are for training
        loss = sum(map(float, self.model.losses), float(ops.convert_to_numpy(plain(labels, outputs))))
        return {"val_loss": loss, "val_accuracy": float(ops.mean(self._right(labels, outputs)))}

    def _measure(self, outputs: Any, penalties: Any, labels: Any, weights: Any, *shares: Any) -> tuple[Any, Any]:
        """Of a batch: the loss that is minimised; the same times its rows, and how many of them are right.

        Of mixed rows, the labels are mixed as they are, and right is what says the label of a row itself.
        """
        parts = [(labels, weights)]
        for share in shares:
            parts = [(labels, share * weights), (ops.flip(labels, axis=0), (1 - share) * ops.flip(weights, axis=0))]
        loss = sum(self._loss(of, outputs, sample_weight=by) for of, by in parts) + sum(penalties)
        right = ops.sum(ops.cast(self._right(labels, outputs), "float32"))
        return loss, ops.stack([loss * outputs.shape[0], right])

    def _pace(self, seconds: float) -> None:
        """Makes calls about as long as CALL; one that compiles says nothing, the next make up for it."""
        if seconds < CALL / 2:
            self._steps *= 4
        elif seconds > 2 * CALL:
            self._steps = max(1, self._steps // 2)

    def _calls(
        self, rows: Rows, others: list[np.ndarray], batches: np.ndarray, at_once: bool = False
    ) -> Iterator[tuple[Any, Any, Any, int, int]]:
        """What to call a pass with: features, what else there is of each place, places, first and last batch.

        Either all of what is on the device already, or the features of these batches alone, taken while those before
        are computed.
        """
        count, size = batches.shape
        if not batches.size:
            return
        if rows.arrays is not None:
            places, start = self.backend.on_device(batches), 0
            while start < count:
                stop = count if at_once else min(count, start + self._steps)
                yield rows.arrays, others, places, start, stop
                start = stop
            return
        each = max(1, min(count, PIECE // (rows.bytes * size)))
        places = self.backend.on_device(np.arange(each * size, dtype="int32").reshape(each, size))
        pieces = [batches[start : start + each] for start in range(0, count, each)]
        filled = [np.resize(piece, each * size) for piece in pieces]  # the last has as many places as the others
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(rows.take, filled[0])
            for number, piece in enumerate(pieces):
                arrays = coming.result()
                if number + 1 < len(pieces):
                    coming = ahead.submit(rows.take, filled[number + 1])
                yield arrays, [other[filled[number]] for other in others], places, 0, len(piece)


def _mixed(arrays: Any, labels: Any, weights: Any, *shares: Any) -> Any:
    """A batch's features; with shares, each row mixed with the one as far from the other end (Zhang et al., 2018)."""
    for share in shares:
        own = [ops.reshape(share, (-1, *[1] * (len(array.shape) - 1))) for array in arrays]
        whole = [ops.cast(array, "float32") for array in arrays]
        arrays = [s * x + (1 - s) * ops.flip(x, axis=0) for s, x in zip(own, whole, strict=True)]
    return arrays
