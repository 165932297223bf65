"""`fer probe`: what features are worth before a head is tuned on them, by two classifiers that have nothing to tune."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from fer_experiments import tracking
from fer_experiments.backbones.networks import seen_near_twins
from fer_experiments.config import Config, flatten, recorded, to_yaml
from fer_experiments.data.splits import allocate
from fer_experiments.errors import UserError
from fer_experiments.evaluation.bootstrap import accuracy_interval
from fer_experiments.evaluation.metrics import scores
from fer_experiments.experiment.prepare import Echo, Preparations, Prepared, smoke
from fer_experiments.terminal import say, table

STRENGTHS = np.logspace(-6, 3, 45)  # 1 / L2, as scikit-learn counts it, on standardised features
HELD_OUT = 0.2  # of the training images: the strength is chosen on them
WORSE = 5  # strengths in a row that held out images like less than the best one before: the rest only overfit more
ITERATIONS = 200  # of L-BFGS at each strength, from where the one before came to
NEIGHBOURS = 20
CHUNK = 1024  # images that are read at once
CLASSIFIERS = ("logistic", "neighbours")


def probe(config: Config, *others: Config, echo: Echo = say) -> pd.DataFrame:
    """Probes the features of each config, in one run of kind `probe`; returns its table, the best features first.

    A row has backbone, cut layer and pooling (of a map both, its mean and its largest), and of each of CLASSIFIERS the
    accuracy on the validation images with its 95 % interval; besides, the strength chosen, seconds, and how many
    validation images are near twins of what the backbone has learned from, whose accuracies that flatters.

    Raises:
        UserError: data or weights that are not there, or the images of all folds at once.
    """
    configs = [smoke(each) for each in (config, *others)]
    store = tracking.connect(config)
    tracking.close_orphans(store)
    preparations = Preparations(echo=echo)
    dataset = preparations.dataset(configs[0])
    if dataset.folds:  # whose training and validation images are the same then
        raise UserError("data.fold=all: a probe is of one fold; say data.fold=0")
    rows: list[dict[str, Any]] = []
    tags = {"fer.dataset": dataset.fingerprint}
    with tracking.start_run(store, "probe", f"probe of {len(configs)}", _common(configs), tags=tags) as run:
        run.log_dataset(dataset)
        run.log_environment()
        for number, each in enumerate(configs):
            run.log_text(to_yaml(recorded(each)), f"configs/{number}.yaml")
            for row in _rows(preparations.of(each)):
                metrics = {f"probe/{name}": value for name, value in row.items() if isinstance(value, float)}
                run.log_metrics(metrics, step=len(rows))
                rows.append(row)
        frame = pd.DataFrame(rows).rename_axis("step").reset_index()
        frame = frame.sort_values("logistic", ascending=False, kind="stable", ignore_index=True)
        run.log_csv(frame, "probe.csv")
    echo(_text(frame))
    return frame


def _common(configs: list[Config]) -> dict[str, Any]:
    """What all configs say alike, by dotted path."""
    first, *rest = (flatten(recorded(config)) for config in configs)
    return {path: value for path, value in first.items() if all(each.get(path) == value for each in rest)}


def _rows(prepared: Prepared) -> Iterator[dict[str, Any]]:
    """What each layer and pooling of some features came to."""
    dataset, config = prepared.dataset, prepared.config
    learned, asked = (_pooled(prepared, rows) for rows in (dataset.train, dataset.val))
    labels = dataset.labels[dataset.train]
    for layer, pooling in learned:
        started = time.perf_counter()
        x, ask = learned[layer, pooling], asked[layer, pooling]
        linear, strength = _logistic(x, labels, ask, config.training.seed)
        row: dict[str, Any] = {"backbone": config.backbone.name, "layer": layer, "pooling": pooling, "size": x.shape[1]}
        for name, probabilities in zip(CLASSIFIERS, (linear, _neighbours(x, labels, ask)), strict=True):
            truth = dataset.labels[dataset.val]
            row[name] = scores(truth, probabilities, ["accuracy"])["accuracy"]
            row[f"{name}_low"], row[f"{name}_high"] = accuracy_interval(truth, probabilities)
        row |= {"strength": strength, "seconds": round(time.perf_counter() - started, 2)}
        yield {**row, "seen_near_twins": seen_near_twins(config.backbone, dataset)}


def _pooled(prepared: Prepared, rows: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """The features of these rows by cut layer and pooling, float32 [rows, channels]."""
    parts: dict[tuple[str, str], list[np.ndarray]] = {}
    for start in range(0, len(rows), CHUNK):
        taken = prepared.features.take(rows[start : start + CHUNK])
        for layer, array in zip(prepared.features.layers, taken, strict=True):
            places = tuple(range(1, array.ndim - 1))
            made = {prepared.config.backbone.pooling: array}
            if places:
                made = {"avg": array.mean(axis=places, dtype="float32"), "max": array.max(axis=places)}
            for pooling, pooled in made.items():
                parts.setdefault((layer, pooling), []).append(pooled.astype("float32"))
    return {key: np.concatenate(chunks) for key, chunks in parts.items()}


def _logistic(x: np.ndarray, labels: np.ndarray, asked: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Probabilities [asked, classes] of a logistic regression, and the strength that suits held out images best."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    x, asked = scaler.transform(x), scaler.transform(asked)
    part = allocate(labels, np.arange(len(labels)), [1 - HELD_OUT, HELD_OUT], np.random.default_rng(seed))
    fitted, held = (np.flatnonzero(part == number) for number in (0, 1))
    if not len(held):
        raise UserError(f"{len(labels)} training images: a probe holds some of each class out; give it more of them")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at weak strengths, which overfit long before
        path = LogisticRegression(warm_start=True, max_iter=ITERATIONS)
        losses = []
        for strength in STRENGTHS:
            path.set_params(C=strength).fit(x[fitted], labels[fitted])
            losses.append(scores(labels[held], path.predict_proba(x[held]), ["log_loss"])["log_loss"])
            if len(losses) - 1 - int(np.argmin(losses)) == WORSE:
                break
        strength = float(STRENGTHS[int(np.argmin(losses))])
        best = LogisticRegression(C=strength, max_iter=ITERATIONS).fit(x, labels)
    return best.predict_proba(asked), strength


def _neighbours(x: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Shares [asked, classes] of each class among the nearest training images, by the cosine of their features."""
    from sklearn.neighbors import KNeighborsClassifier

    nearest = KNeighborsClassifier(min(NEIGHBOURS, len(x)), metric="cosine").fit(x, labels)
    return np.asarray(nearest.predict_proba(asked))


def _text(frame: pd.DataFrame) -> str:
    """The table for a terminal."""
    rows = [
        ["backbone", "layer", "pooling", "size", "logistic (95 %)", f"{NEIGHBOURS} nearest (95 %)", "1/L2", "seconds"]
    ]
    for row in frame.to_dict("records"):
        accuracies = [f"{row[n]:.4f} ({row[f'{n}_low']:.4f} to {row[f'{n}_high']:.4f})" for n in CLASSIFIERS]
        named = [str(row[name]) for name in ("backbone", "layer", "pooling", "size")]
        rows.append([*named, *accuracies, f"{row['strength']:.2g}", f"{row['seconds']:.1f}"])
    return table(rows, right=3)
