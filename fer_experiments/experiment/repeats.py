"""A config fitted several times, on folds and with seeds: what the fits come to together, and whose head is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments.config import Config, TrainingConfig
from fer_experiments.evaluation.metrics import classification_metrics
from fer_experiments.experiment.prepare import Prepared
from fer_experiments.training.fit import fit_head
from fer_experiments.training.result import TrainingResult

if TYPE_CHECKING:
    import keras

ACCURACY = "final/val_accuracy"
# The callbacks of the fit with this number, from 0; None: neither it nor those after it are begun.
Callbacks = Callable[[int], "Sequence[keras.callbacks.Callback] | None"]


@dataclass(frozen=True)
class Fits:
    """The fits of one config, of most configs one.

    places: the fold and the seed of each. scores: the objective of each, by which `kept` is chosen, whose head is the
    config's. folds: how many there are; 1 where data are not folded.
    """

    folds: int
    results: list[TrainingResult]
    places: list[tuple[int, int]]
    scores: list[float]

    @property
    def kept(self) -> TrainingResult:
        """The fit with the median score; of two in the middle the lower one, of equals the first."""
        order = sorted(range(len(self.scores)), key=lambda number: (self.scores[number], number))
        return self.results[order[(len(order) - 1) // 2]]

    @property
    def repeats(self) -> int:
        """How many of them have scored the same images."""
        return max(1, len(self.results) // self.folds)

    @property
    def epochs(self) -> int:
        """Of all fits."""
        return sum(len(result.history) for result in self.results)

    @property
    def seconds(self) -> float:
        """Of all fits."""
        return sum(result.seconds for result in self.results)

    def table(self) -> list[dict[str, Any]]:
        """Each fit by itself, as it is recorded: its place, metrics, epochs, seconds, and whether its head is kept."""
        return [
            {
                **({"fold": fold} if self.folds > 1 else {}),
                "seed": seed,
                **{f"final/val_{k}": v for k, v in classification_metrics(r.val_labels, r.val_probabilities).items()},
                "epochs": len(r.history),
                "best_epoch": r.best_epoch,
                "seconds": r.seconds,
                "kept": r is self.kept,
            }
            for (fold, seed), r in zip(self.places, self.results, strict=True)
        ]


def fit_all(
    prepared: Prepared,
    config: Config,
    *,
    repeats: int = 1,
    objective: str = ACCURACY,
    callbacks: Callbacks = lambda number: (),
    description: str = "fit",
    **options: Any,
) -> Fits:
    """Fits the config's head on every part of what was prepared, first with its own seed, then with others.

    One that is to be fine-tuned on features is fitted on what the layers above make of them.

    options: of `fit_head`.
    """
    fits, above = Fits(len(prepared.parts), [], [], []), config.training.from_features
    # No two fits share a seed: what a seed does to all folds alike, their spread would not show.
    seeds = seeds_of(config.training, fits.folds * repeats)
    for number, seed in enumerate(seeds):
        fold = number // repeats
        own = callbacks(number)
        if own is None:
            break
        result = fit_head(
            prepared.above if above else prepared.features,
            prepared.parts[fold],
            config.head,
            replace(config.training, seed=seed),
            moments=prepared.moments[fold] if config.head.normalize and not above else None,
            callbacks=own,
            description=description if len(seeds) == 1 else f"{description}, fit {number + 1} of {len(seeds)}",
            **options,
        )
        fits.results.append(result)
        fits.places.append((fold, seed))
        if len(result.val_labels):
            scores = classification_metrics(result.val_labels, result.val_probabilities)
            fits.scores.append(scores[objective.removeprefix("final/val_")])
        else:
            fits.scores.append(math.nan)
    return fits


def seeds_of(training: TrainingConfig, fits: int) -> list[int]:
    """The seed of each fit: the config's own, and others made from it, below 2**31."""
    made = np.random.SeedSequence(training.seed).generate_state(fits - 1) >> 1
    return [training.seed, *map(int, made)]
