"""The model that is tested and registered: the head of the best refit, its temperature, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_experiments import tracking
from fer_experiments.config import Config
from fer_experiments.errors import UserError
from fer_experiments.evaluation import curves
from fer_experiments.evaluation.calibration import fit_temperature, tempered, untempered
from fer_experiments.evaluation.metrics import scores
from fer_experiments.experiment.prepare import Prepared
from fer_experiments.experiment.record import log_scores
from fer_experiments.features.cache import exact_features
from fer_experiments.registry.candidates import Refitted
from fer_experiments.registry.sealed import Outcome
from fer_experiments.tracking import models
from fer_experiments.training.fit import predict
from fer_experiments.training.whole import CHECKED, ROUGH, TOLERANCE, assemble, compare

if TYPE_CHECKING:
    import keras

Echo = Callable[[str], None]

MEASURED = ("log_loss", "brier_score", "expected_calibration_error")  # that a temperature moves


@dataclass(frozen=True)
class Answering:
    """What answers in the model.

    labels: of the validation split. plain: what the head says of it, float32 [n, classes]. temperature: of its
    probabilities, 1 leaves them as they are.
    """

    head: keras.Model
    labels: np.ndarray
    plain: np.ndarray
    temperature: float

    @property
    def said(self) -> np.ndarray:
        """What the model says of the validation split, float32 [n, classes]."""
        return tempered(self.plain, self.temperature)


def choose_answering(run: tracking.Run, config: Config, prepared: Prepared, taken: Refitted, seed: int) -> Answering:
    """The head of a refit with its temperature; its scores on the validation split go on the promotion's run."""
    assert config.promote is not None
    head, dataset = tracking.load_head(run.store, taken.runs[seed]), prepared.dataset
    labels, plain = dataset.labels[dataset.val], predict(head, prepared.features, dataset.val)
    answering = Answering(head, labels, plain, fit_temperature(labels, plain) if config.promote.temperature else 1.0)
    log_scores(run, "val", labels, answering.said, dataset.classes)
    return answering


def write_model(
    config: Config, prepared: Prepared, answering: Answering, folder: Path, echo: Echo
) -> tuple[np.ndarray, np.ndarray]:
    """Writes the model; returns at least CHECKED images and what it says of them, which stored features say too.

    Both are compared without the temperature, which would make differences smaller or larger.

    Raises:
        UserError: it says something else, or there are too few images to tell.
    """
    dataset, head, views = prepared.dataset, answering.head, prepared.features.views
    rows = np.concatenate([dataset.val, dataset.train])
    if len(rows) < CHECKED:
        raise UserError(f"data={config.data.name}: {len(rows)} images; it takes {CHECKED} to check a model on")
    rows = np.sort(rows[: 2 * CHECKED])
    shape, classes = dataset.images.shape[1:], dataset.classes
    network = assemble(config.backbone, shape, head, views, len(classes), answering.temperature)
    models.save_classifier(network, classes, folder)
    said = models.load_classifier(folder).probabilities(dataset.images[rows])
    plain = untempered(said, answering.temperature)
    stored, rough = predict(head, prepared.features, rows), config.features.precision != "float32"
    if rough:  # what is assembled is told from what is not by features that are as exact as it
        exact = exact_features(dataset.images[rows], config.backbone, config.features)
        compare("the assembled model", plain, predict(head, exact, np.arange(len(rows))))
    agreement = compare("the assembled model", plain, stored, ROUGH if rough else TOLERANCE, mean=rough)
    limit = f"; with features in float32 within {TOLERANCE:g}" if rough else f", allowed {TOLERANCE:g}"
    echo(
        f"assembled: agrees with the stored features on {agreement.images} images (largest difference of a "
        f"probability {agreement.largest:.2g}, mean {agreement.mean:.2g}{limit})"
    )
    return dataset.images[rows], said


@dataclass(frozen=True)
class Calibration:
    """MEASURED metrics by split ("val", "test"), and by "before" and "after" the temperature."""

    temperature: float
    scores: dict[str, dict[str, dict[str, float]]]


def record_calibration(run: tracking.Run, answering: Answering, tested: Outcome, echo: Echo) -> Calibration | None:
    """What the temperature has changed goes on the run, and is said; None without one."""
    if answering.temperature == 1:
        return None
    labels, before = tested.test.labels, untempered(tested.probabilities, answering.temperature)
    said = {
        "val": (answering.labels, {"before": answering.plain, "after": answering.said}),
        "test": (labels, {"before": before, "after": tested.probabilities}),
    }
    found = {
        split: {when: scores(true, probabilities, MEASURED) for when, probabilities in of_it.items()}
        for split, (true, of_it) in said.items()
    }
    run.log_metrics(
        {"calibration/temperature": answering.temperature}
        | {
            f"calibration/{split}_{name}_{when}": value
            for split, whens in found.items()
            for when, values in whens.items()
            for name, value in values.items()
        }
    )
    run.log_figure(curves.calibration_curve(labels, before), "plots/calibration_before_test.png")
    echo(f"temperature {answering.temperature:.3f}, fitted on the validation split; on the test split:")
    for name in MEASURED:
        echo(f"  {name:28}{found['test']['before'][name]:.4f} before, {found['test']['after'][name]:.4f} after")
    return Calibration(answering.temperature, found)
