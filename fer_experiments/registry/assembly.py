"""The model that is tested and registered: which refits' heads answer in it, at which temperature."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_experiments import tracking
from fer_experiments.config import TRAIN_VAL, Config, PromoteConfig
from fer_experiments.data import Dataset
from fer_experiments.errors import UserError
from fer_experiments.evaluation import curves
from fer_experiments.evaluation.calibration import (
    answer_threshold,
    answered,
    fit_temperature,
    tempered,
    told,
    untempered,
)
from fer_experiments.evaluation.metrics import scores
from fer_experiments.experiment.prepare import Prepared
from fer_experiments.experiment.record import FITTED, log_scores
from fer_experiments.features.cache import exact_features
from fer_experiments.registry.candidates import Refitted
from fer_experiments.registry.sealed import Outcome
from fer_experiments.terminal import Echo, counted
from fer_experiments.tracking import models
from fer_experiments.training.fit import predict
from fer_experiments.training.whole import CHECKED, MANY, ROUGH, TOLERANCE, assemble, at_temperature, compare, enough

if TYPE_CHECKING:
    import keras


MEASURED = ("log_loss", "brier_score", "expected_calibration_error")  # that a temperature moves


@dataclass(frozen=True)
class Ensemble:
    """What answers in the model.

    runs: of the refits whose heads are averaged. labels: of the validation split. plain: what the heads say of it,
    float32 [n, classes]. temperature: of their probabilities, 1 leaves them as they are. threshold: of
    `models.labels`, 0 where it answers always. epochs: of each head, where they were fitted on the validation split
    too; plain, and what is made of it, is then of the heads of the same seeds that were not.
    """

    runs: tuple[str, ...]
    heads: list[keras.Model]
    labels: np.ndarray
    plain: np.ndarray
    temperature: float
    threshold: float = 0.0
    epochs: tuple[int, ...] = ()

    @cached_property
    def said(self) -> np.ndarray:
        """What the model says of the validation split, float32 [n, classes]."""
        return tempered(self.plain, self.temperature)

    @cached_property
    def scores(self) -> dict[str, float]:
        """Accuracy and log loss on the validation split."""
        return scores(self.labels, self.said, ("accuracy", "log_loss"))

    @property
    def chosen_by(self) -> str:
        """What is to be said of what is chosen on the validation split."""
        return ", by the refits on train alone" if self.epochs else ""

    @property
    def tags(self) -> dict[str, str]:
        """Of a registered version."""
        said = {"fer.heads": json.dumps(self.runs), "fer.temperature": f"{self.temperature:.4f}"}
        if self.threshold:
            said["fer.threshold"] = f"{self.threshold:.4f}"
        if self.epochs:
            said |= {FITTED: TRAIN_VAL, "fer.epochs": json.dumps(self.epochs)}
        return said


def check_choices(promoting: PromoteConfig, dataset: Dataset, configs: Sequence[Config]) -> None:
    """Refuses what no refit of these configs could give, before any is made.

    Raises:
        UserError: naming it.
    """
    if dataset.folds and (promoting.ensemble != "none" or promoting.abstain is not None):
        raise UserError(
            "data.fold=all: its heads have learned from each other's folds; promote.ensemble and .abstain "
            "choose on a validation split that none has learned from: leave them out"
        )
    if promoting.ensemble != "none" and any(config.training.on_pixels for config in configs):
        raise UserError(
            f"promote.ensemble={promoting.ensemble}: fine-tuned networks have no backbone in common; leave it out"
        )
    if promoting.abstain is not None and models.UNCERTAIN in dataset.classes:
        raise UserError(
            f"promote.abstain={promoting.abstain:g}: a class is called {models.UNCERTAIN} already; name it otherwise"
        )
    check_enough(dataset, configs[0])


def check_enough(dataset: Dataset, config: Config) -> None:
    """Refuses fewer images than it takes to believe an assembled model; trials may differ in how many they have.

    Raises:
        UserError: saying how many there are.
    """
    if len(dataset.images) < CHECKED:
        raise UserError(
            f"data={config.data.name}: {len(dataset.images)} images to train and validate on; it takes {CHECKED} to "
            "check on that a model says what was fitted; add some"
        )


def choose_ensemble(
    run: tracking.Run, config: Config, prepared: Prepared, refits: list[Refitted], direction: str, echo: Echo
) -> list[Ensemble]:
    """The best seed's head of the best config, and the ensemble that is asked for; the first has the least log loss.

    refits: the best first. Scores on the validation split go on the promotion's run.

    Raises:
        UserError: no threshold that holds promote.abstain.
    """
    assert config.promote is not None
    dataset, best, promoting = prepared.dataset, refits[0], config.promote
    own, members = best.runs[best.best_seed(direction)], _members(promoting.ensemble, refits, direction)
    heads = {name: tracking.load_head(run.store, name) for name in (own, *members)}
    answers = {name: _said(config, prepared, head, dataset.val) for name, head in heads.items()}
    labels = dataset.labels[dataset.val]

    def together(names: tuple[str, ...]) -> Ensemble:
        plain = np.mean([answers[name] for name in names], axis=0)
        temperature = fit_temperature(labels, plain) if promoting.temperature and not dataset.folds else 1.0
        return Ensemble(names, [heads[name] for name in names], labels, plain, temperature)

    options = [together(names) for names in dict.fromkeys(((own,), members or (own,)))]
    options.sort(key=lambda option: option.scores["log_loss"])
    if promoting.ensemble != "none":
        _record_ensemble(run, options, echo)
    if dataset.folds:  # what the head says of them is partly what it was taught: those of the refit are out of fold
        found = tracking.Run(run.store, own).metrics
        run.log_metrics({name: value for name, value in found.items() if name.startswith("final/val_")})
    else:
        log_scores(run, "val", [(labels, options[0].said)], dataset.classes)
    return [_abstaining(options[0], promoting.abstain, echo), *options[1:]]


def _abstaining(ensemble: Ensemble, error: float | None, echo: Echo) -> Ensemble:
    """The same with the threshold that holds promote.abstain."""
    if error is None:
        return ensemble
    threshold = answer_threshold(ensemble.labels, ensemble.said, error)
    if threshold is None:
        raise UserError(
            f"promote.abstain={error:g}: it errs more often in its surest answers on the validation split; allow more"
        )
    if not threshold:
        echo(f"promote.abstain={error:g}: it errs less often than that on the validation split, and answers always")
    return replace(ensemble, threshold=threshold)


def _members(asked: str, refits: list[Refitted], direction: str) -> tuple[str, ...]:
    """The runs whose heads are averaged: see PromoteConfig."""
    best = refits[0]
    if asked == "seeds":
        return tuple(best.runs.values())
    features = best.candidate.tags.get("fer.features")
    same = [refit for refit in refits if refit.candidate.tags.get("fer.features") == features]
    return tuple(refit.runs[refit.best_seed(direction)] for refit in same) if asked == "top_k" else ()


def _record_ensemble(run: tracking.Run, options: list[Ensemble], echo: Echo) -> None:
    echo("on the validation split:")
    for option in options:
        count, told = len(option.runs), "  ".join(f"{name} {value:.4f}" for name, value in option.scores.items())
        echo(f"  {counted(count, 'head'):12} {told}{', taken' if option is options[0] else ''}")
    if len(options) == 1:
        echo("  no other refit stands on the same features: there is nothing to average")
    run.log_json([{"runs": option.runs, **option.scores} for option in options], "ensemble.json")


def _said(config: Config, prepared: Prepared, head: keras.Model, rows: np.ndarray) -> np.ndarray:
    """What a head says of stored features, or a fine-tuned network of images: float32 [rows, classes]."""
    if not config.training.on_pixels:
        return predict(head, prepared.features, rows)
    return _asked(head, prepared.dataset.images[rows])


def _asked(network: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(network.predict(images, batch_size=64, verbose=0))


def write_model(config: Config, prepared: Prepared, ensemble: Ensemble, folder: Path, echo: Echo) -> np.ndarray:
    """Writes the model; returns CHECKED images or more, of which it says what stored features say.

    Both are compared without the temperature, which would make differences smaller or larger.

    Raises:
        UserError: it says something else, or there are too few images to tell.
    """
    dataset, heads = prepared.dataset, ensemble.heads
    check_enough(dataset, config)
    rows = np.concatenate([dataset.val, dataset.train])
    rows = np.sort(rows[:MANY])
    images: np.ndarray = dataset.images[rows]
    tuned, count = config.training.on_pixels, len(dataset.classes)
    if tuned:
        network = at_temperature(heads[0], ensemble.temperature)
    else:
        shape, views = images.shape[1:], prepared.features.views
        network = assemble(config.backbone, shape, heads, views, count, ensemble.temperature)
    models.save_classifier(network, dataset.classes, folder, ensemble.threshold)
    seen = enough(images)
    said = untempered(models.load_classifier(folder).probabilities(seen), ensemble.temperature)
    plain, rough = said[: len(images)], config.features.precision != "float32" and not tuned
    if tuned:
        compare("the assembled model", said, _asked(heads[0], seen))
    elif rough or len(seen) > len(images):
        # What is assembled is told from what is not by features that are as exact as it, and by enough images.
        exact = exact_features(seen, config.backbone, config.features)
        expected = np.mean([predict(head, exact, np.arange(len(seen))) for head in heads], axis=0)
        compare("the assembled model", said, expected)
    stored = np.mean([_said(config, prepared, head, rows) for head in heads], axis=0)
    agreement = compare("the assembled model", plain, stored, ROUGH if rough else TOLERANCE, mean=rough)
    limit = f"; with features in float32 within {TOLERANCE:g}" if rough else f", allowed {TOLERANCE:g}"
    echo(
        f"assembled: agrees with {'the network of its run' if tuned else 'the stored features'} on {agreement.images} "
        f"images (largest difference of a probability {agreement.largest:.2g}, mean {agreement.mean:.2g}{limit})"
    )
    return images


@dataclass(frozen=True)
class Calibration:
    """How honest the probabilities are.

    scores: MEASURED metrics by split ("val", "test"), and by "before" and "after" the temperature; empty without one.
    answered: by split, the share that is answered with a threshold, and the error in that; empty without one.
    """

    scores: dict[str, dict[str, dict[str, float]]]
    answered: dict[str, tuple[float, float]]


def record_calibration(run: tracking.Run, ensemble: Ensemble, tested: Outcome, echo: Echo) -> Calibration:
    """What the temperature has changed, and what is answered, on validation and test split: on the run, and said."""
    splits = {
        "val": (ensemble.labels, ensemble.plain, ensemble.said),
        "test": (tested.test.labels, untempered(tested.probabilities, ensemble.temperature), tested.probabilities),
    }
    calibration = Calibration({}, {})
    for split, (labels, before, after) in splits.items():
        if ensemble.temperature != 1:
            calibration.scores[split] = {
                when: scores(labels, said, MEASURED) for when, said in (("before", before), ("after", after))
            }
        if ensemble.threshold:
            calibration.answered[split] = answered(labels, after, ensemble.threshold)
    if calibration.scores:
        labels, before, _ = splits["test"]
        run.log_figure(curves.calibration_curve(labels, before), "plots/calibration_before_test.png")
    _record(run, ensemble, calibration)
    _show(ensemble, calibration, echo)
    return calibration


def _record(run: tracking.Run, ensemble: Ensemble, calibration: Calibration) -> None:
    values = {"calibration/temperature": ensemble.temperature}
    for split, whens in calibration.scores.items():
        for when, found in whens.items():
            values |= {f"calibration/{split}_{name}_{when}": value for name, value in found.items()}
    if ensemble.threshold:
        values["abstain/threshold"] = ensemble.threshold
    for split, (coverage, error) in calibration.answered.items():
        values |= {f"abstain/{split}_coverage": coverage, f"abstain/{split}_error": error}
    run.log_metrics({name: value for name, value in values.items() if value == value})  # of no answer, no error


def _show(ensemble: Ensemble, calibration: Calibration, echo: Echo) -> None:
    if calibration.scores:
        echo(f"temperature {told(ensemble.temperature)}, fitted on the validation split; on the test split:")
        before, after = (calibration.scores["test"][when] for when in ("before", "after"))
        for name in MEASURED:
            echo(f"  {name:28}{before[name]:.4f} before, {after[name]:.4f} after")
    if ensemble.threshold:
        coverage, error = calibration.answered["test"]
        much = f"{coverage:.1%}, {error:.2%} of that wrong" if coverage else "none"
        echo(f"{models.UNCERTAIN} below a probability of {ensemble.threshold:.4f}: on the test split it answers {much}")
