"""The sealed test split: opened once a promotion, recorded first, and everything that is measured on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fer_experiments import tracking
from fer_experiments.backbones.networks import check_part_not_seen
from fer_experiments.config import Config
from fer_experiments.data import Dataset, TestSplit
from fer_experiments.evaluation import curves, figures, metrics, slices
from fer_experiments.evaluation.bootstrap import Interval, evaluate
from fer_experiments.evaluation.faces import worst_mistakes
from fer_experiments.experiment.record import log_confusion, open_sealed_test

PROBABILITIES = "metrics/test_probabilities.csv"


@dataclass(frozen=True)
class Outcome:
    """What a model came to on the test split.

    probabilities: float32 [n, classes]. scores: by name, see `bootstrap.evaluate`. recall: by class. emotions: see
    `slices.emotion_errors`. openings: how often these images were opened, this time included;
    ledger: by which runs, the oldest first.
    """

    test: TestSplit
    probabilities: np.ndarray
    scores: dict[str, Interval]
    recall: dict[str, float]
    emotions: pd.DataFrame
    openings: int
    ledger: Sequence[tracking.FoundRun] = ()


def open_and_test(
    run: tracking.Run, config: Config, dataset: Dataset, predict: Callable[[np.ndarray], np.ndarray]
) -> Outcome:
    """Opens the test split, scores a model on it and records both on the run.

    Args:
        run: of the promotion; see `open_sealed_test`.
        dataset: the training and validation splits of the same data.
        predict: uint8 [n, h, w] to probabilities [n, classes].

    Raises:
        UserError: the backbone has seen these images, or the data are others by now.
    """
    assert config.promote is not None
    test = open_sealed_test(run, config, dataset)
    ledger = tracking.openings(run.store, dataset.fingerprint, dataset.test_digest)
    check_part_not_seen(config.backbone, config.data.source, test.images, test.usage, "test")
    probabilities = predict(test.images)
    tested = Outcome(
        test=test,
        probabilities=probabilities,
        scores=evaluate(test.labels, probabilities, resamples=config.promote.resamples),
        recall=_recall(test, probabilities),
        emotions=slices.emotion_errors(test.emotions, test.labels, probabilities, test.classes),
        openings=len(ledger),
        ledger=ledger,
    )
    _record(run, tested)
    return tested


def _recall(test: TestSplit, probabilities: np.ndarray) -> dict[str, float]:
    matrix = metrics.confusion(test.labels, probabilities)
    shares = matrix.diagonal() / matrix.sum(axis=1)
    return {name: float(share) for name, share in zip(test.classes, shares, strict=True)}


def _record(run: tracking.Run, tested: Outcome) -> None:
    test, probabilities = tested.test, tested.probabilities
    values: dict[str, float] = {}
    for name, score in tested.scores.items():
        logged = f"final/test_{metrics.recorded_as(name)}"
        values |= {logged: score.value, f"{logged}_low": score.low, f"{logged}_high": score.high}
    values |= {f"final/test_recall_{name}": share for name, share in tested.recall.items()}
    run.log_metrics(values)
    log_confusion(run, "test", test.labels, probabilities, test.classes)
    drawn = {
        "precision_recall": curves.precision_recall_curve(test.labels, probabilities, test.classes),
        "calibration": curves.calibration_curve(test.labels, probabilities),
        "emotion_errors": figures.emotion_errors(tested.emotions),
        "worst_mistakes": worst_mistakes(test.images, test.emotions, test.labels, probabilities, test.classes),
    }
    for name, figure in drawn.items():
        run.log_figure(figure, f"plots/{name}_test.png")
    run.log_csv(tested.emotions, "metrics/emotion_errors_test.csv")
    columns = {f"probability_{name}": probabilities[:, i] for i, name in enumerate(test.classes)}
    run.log_csv(pd.DataFrame({"id": test.ids, "label": test.labels, **columns}), PROBABILITIES)


def recorded_probabilities(store: tracking.Store, run_id: str, test: TestSplit, *, by_id: bool) -> np.ndarray | None:
    """Those of the model of another promotion on the same test split, row by row; None when they are not on record.

    by_id: an earlier version recorded that its data were the same, not that its rows were. Else they are taken in their
    order: an image's id is where it lay, and the same images may lie elsewhere.
    """
    table = recorded_table(store, run_id)
    if table is None or not table["id"].is_unique:
        return None
    if by_id:
        table = table.set_index("id").reindex(test.ids.astype(str))
    columns = [f"probability_{name}" for name in test.classes]
    if not set(columns) <= set(table) or table[columns].isna().to_numpy().any():
        return None
    return table[columns].to_numpy() if np.array_equal(table["label"], test.labels) else None


def recorded_table(store: tracking.Store, run_id: str) -> pd.DataFrame | None:
    """What the model of a promotion said of the test split, a row an image: id, label, probability_<class> of each
    class; None when it is not on record."""
    return tracking.artifact_table(store, run_id, PROBABILITIES, ["id", "label"])
