"""The rows of a comparison: what runs, sweeps, registered models and published systems came to."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fer_experiments import tracking
from fer_experiments.config import Config, close, mlruns_dir
from fer_experiments.errors import UserError
from fer_experiments.evaluation.bootstrap import binomial_interval
from fer_experiments.evaluation.seeds import Spread, spread
from fer_experiments.experiment.record import FITTED, PREDICTIONS
from fer_experiments.registry.sealed import recorded_table
from fer_experiments.report.published import GROUP, published, published_names
from fer_experiments.report.record import INPUTS, same_but_seed
from fer_experiments.search.recorded import find_sweep
from fer_experiments.search.state import is_of
from fer_experiments.search.trials import RUN_ID
from fer_experiments.tracking import IMAGES, FoundRun, Store, artifact_json, artifact_table, models

ACCURACY = "final/val_accuracy"


@dataclass(frozen=True)
class Entry:
    """A row; what is not on record is None. Units as in `Published`.

    accuracy, low, high: with its 95 % interval, on `split`. chosen: what was chosen on that split. seeds: validation
    accuracies of the same config over seeds. source: a run's id, or an address. store, run: of what is recorded here.
    images: names of those that it was evaluated on; two entries that share one have them in common. validated: those
    that `seeds` are of.
    """

    name: str
    split: str
    chosen: str
    source: str
    classes: int | None = None
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: Spread | None = None
    training_s: float | None = None
    hardware: str | None = None
    epochs: int | None = None
    parameters: int | None = None
    trainable: int | None = None
    mb: float | None = None
    ms: float | None = None
    store: Store | None = None
    run: FoundRun | None = None
    images: frozenset[str] = frozenset()
    validated: str | None = None

    def predictions(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Labels int64 [n] and probabilities [n, classes] of its images; None where they are not on record."""
        if self.store is None or self.run is None or not self.images:
            return None
        if self.run.tags.get("fer.kind") == "promotion":
            table = recorded_table(self.store, self.run.run_id)
            if table is None:
                return None
            return table["label"].to_numpy("int64"), table.filter(regex="^probability_").to_numpy("float64")
        content = tracking.artifact_bytes(self.store, self.run.run_id, PREDICTIONS)
        try:
            arrays = None if content is None else np.load(io.BytesIO(content))
            return None if arrays is None else (arrays["labels"], arrays["probabilities"])
        except Exception:  # damaged: of the zip, its compression, or NumPy's headers
            return None


def entries(config: Config, names: Sequence[str]) -> list[Entry]:
    """The rows that these words name, each once, in whatever ways it is named.

    Args:
        config: where runs and sweeps are recorded (paths, tracking); nothing else of it is looked at.
        names: ids of runs; ids, names or runs' ids of sweeps, for their best trial; registered models, as fer-<task>
            for the champion or fer-<task>/<version or alias>; published systems, or "published" for all of them.

    Raises:
        UserError: nothing of this name, or nothing finished in it; a name of two things.
    """
    if not names:
        raise UserError("name what to compare: ids of runs, sweeps, fer-<task>, or published")
    known = published_names()
    words = dict.fromkeys(word for name in names for word in (known if name == GROUP else [name]))
    for name in names:
        if name in (GROUP, *known):
            _refuse_sweep_of(config, name, "published systems" if name == GROUP else "a published system")
    store = None if words.keys() <= {*known} else tracking.connect_existing(config)
    rows = [_of_published(word) if store is None or word in known else _entry(config, store, word) for word in words]
    found: dict[str, Entry] = {}
    for row in rows:
        found.setdefault(row.run.run_id if row.run else row.name, row)
    return list(found.values())


def _refuse_sweep_of(config: Config, name: str, what: str, otherwise: str = "") -> None:
    if any(is_of(folder.name, name) for folder in (mlruns_dir(config) / "sweeps").glob("*")):
        raise UserError(f"{name}: {what} and a sweep of that name; say the sweep's id (`fer sweeps`){otherwise}")


def _entry(config: Config, store: Store, word: str) -> Entry:
    """The row of what is recorded here."""
    name, _, which = word.partition("/")
    if which and name.startswith(models.PREFIX):
        return _of_model(store, name, which)
    if word in models.model_names(store):
        _refuse_sweep_of(config, word, "a registered model", f", or {word}/{models.CHAMPION}")
        return _of_model(store, word, which)
    run = tracking.find_run(store, word) if RUN_ID.fullmatch(word) else None
    if run is not None and tracking.SEEDS in run.tags:
        run = tracking.find_run(store, run.tags[tracking.SEEDS])
    if run is not None and run.tags.get("fer.kind") != "sweep":
        return _of_run(store, run)
    try:
        state, _ = find_sweep(mlruns_dir(config) / "sweeps", word)
    except UserError as error:
        if any(folder.name == word or is_of(folder.name, word) for folder in (mlruns_dir(config) / "sweeps").glob("*")):
            raise  # what is wrong with the sweep
        if word.startswith(models.PREFIX):
            return _of_model(store, word, "")  # which says what models there are
        known = close(word, published_names())
        raise UserError(f"{word}: no run, registered model (fer-<task>) or published system{known}; {error}") from error
    best = state.best()
    found = tracking.find_run(store, best.run_id) if best and best.run_id else None
    if best is None or found is None:
        raise UserError(f"sweep {state.id}: no trial of it has finished that is in {store}")
    return replace(_of_run(store, found), name=f"{state.id}, trial {best.number}")


def _of_published(name: str) -> Entry:
    said = published(name)
    low, high = binomial_interval(said.accuracy, said.images) if said.images else (None, None)
    told = {key: value for key, value in vars(said).items() if key != "images"}
    return Entry(**told, low=low, high=high)


def _of_model(store: Store, name: str, which: str) -> Entry:
    word = f"{name}/{which}" if which else name
    names = models.model_names(store)
    version = models.find_version(store, name, which or models.CHAMPION) if name in names else None
    if version is None:
        known = ", ".join(f"{n}/{v.number}" for n in names for v in models.versions(store, n))
        raise UserError(f"{word}: no such registered model in {store}; there are {known or 'none'}")
    run = tracking.find_run(store, version.run_id)
    if run is None:
        raise UserError(f"{word}: its run {version.run_id} is not in {store}")
    return replace(_of_run(store, run), name=f"{name}/{version.number}")


def _of_run(store: Store, run: FoundRun) -> Entry:
    """A finished training, by its validation split; a promotion, by the test split that it opened."""
    store, kind = store.of(run.params.get("data.task", store.experiment.removeprefix("fer/"))), run.tags.get("fer.kind")
    split, fit = ("test", _taken(store, run)) if kind == "promotion" else ("val", run)
    metrics = run.metrics
    accuracy = metrics.get(f"final/{split}_accuracy")
    if accuracy is None:
        remedy = "; name the promotion that it was for" if kind == "refit" else ""
        raise UserError(f"run {run.run_id}: a {kind} run, {run.status.lower()}, without a {split} accuracy{remedy}")
    suffix = "" if split == "val" else "_test"
    matrix = artifact_json(store, run.run_id, f"metrics/confusion_matrix{suffix}.json", {"classes": [""]})
    validated, fit = fit.tags.get(IMAGES["val"]), _final(store, run, fit)
    history = artifact_table(store, fit.run_id, "metrics/history.csv")
    return Entry(
        name=" ".join(filter(None, (run.params.get("backbone.name"), run.params.get("head.name")))) or run.name,
        split=f"{'validation' if split == 'val' else 'test'}, {run.params.get('data.split', 'not recorded')}",
        chosen=_chosen(store, run),
        source=run.run_id,
        classes=len(matrix["classes"]) if matrix else None,
        accuracy=accuracy,
        low=metrics.get(f"final/{split}_accuracy_low"),
        high=metrics.get(f"final/{split}_accuracy_high"),
        seeds=over_seeds(store, run),
        training_s=_training_s(store, run, fit),
        hardware=_hardware(store, fit),
        epochs=None if history is None else len(history),
        parameters=_whole(metrics.get("model/parameters")),
        trainable=_whole(metrics.get("model/trainable_parameters")),
        mb=metrics.get("model/mb"),
        ms=metrics.get("model/latency_ms"),
        store=store,
        run=run,
        images=_images(run, split),
        validated=validated,
    )


def _taken(store: Store, promotion: FoundRun) -> FoundRun:
    """The refit whose head a promotion took; the promotion itself where that is not on record."""
    refits = artifact_json(store, promotion.run_id, "refits.json", [{"runs": {}}])
    run_id = refits[0]["runs"].get(promotion.params.get("training.seed")) if refits else None
    return (tracking.find_run(store, run_id) if run_id else None) or promotion


def _final(store: Store, run: FoundRun, refit: FoundRun) -> FoundRun:
    """The fit on training and validation images that a promotion has made of a refit, or else the refit."""
    fits = artifact_json(store, run.run_id, "final_fits.json", [{"run_id": "", "of": ""}]) if FITTED in run.tags else []
    run_id = next((fit["run_id"] for fit in fits or [] if fit["of"] == refit.run_id), None)
    return (tracking.find_run(store, run_id) if run_id else None) or refit


def _training_s(store: Store, run: FoundRun, fit: FoundRun) -> float | None:
    """Seconds of all fits that answer in a model: several, where a promotion averages heads."""
    tried = artifact_json(store, run.run_id, "ensemble.json", [{"runs": [""]}])
    chosen = [tracking.find_run(store, name) for name in tried[0]["runs"]] if tried else [fit]
    fits = [found and _final(store, run, found) for found in chosen]
    times = [found.metrics["time/fit_s"] for found in fits if found and "time/fit_s" in found.metrics]
    return sum(times) if len(times) == len(fits) else None


def _images(run: FoundRun, split: str) -> frozenset[str]:
    """A promotion of an earlier version has no digest of its test images, but the fingerprint that covers them."""
    names = [run.tags.get(IMAGES[split])]
    if split == "test" and "fer.dataset" in run.tags:
        names.append(f"test split of {run.tags['fer.dataset']}")
    return frozenset(name for name in names if name)


def _chosen(store: Store, run: FoundRun) -> str:
    """What was chosen on the split that a run is told by."""
    kind = run.tags.get("fer.kind")
    if kind != "promotion":
        return "epoch and config" if kind == "trial" else "epoch"
    count = len(tracking.openings(store, run.tags.get("fer.dataset", ""), run.tags.get(IMAGES["test"], "")))
    also = f"; fitted on {run.tags[FITTED]}" if FITTED in run.tags else ""
    return f"nothing; opened {count} time{'s'[: count != 1]}{also}"


def over_seeds(store: Store, run: FoundRun) -> Spread | None:
    """Validation accuracies of the trainings that differ from a run in their seed alone; None of fewer than two.

    Those of sweeps are left out, and of trainings what repeats one: being chosen for its score flatters a trial.
    """
    inputs = {key: run.tags[key] for key in INPUTS if key in run.tags}
    own = same_but_seed(run)
    scores: dict[str | None, float] = {}
    for kind in ("train", "trial") if inputs else ():
        if kind == "trial" and len(scores) < 2:
            return None  # without a look at trials, of which there may be thousands
        for found in tracking.find_runs(store, {"fer.kind": kind, **inputs}, "FINISHED"):
            if ACCURACY in found.metrics and same_but_seed(found) == own:
                seed = found.params.get("training.seed")
                if kind == "train":
                    scores.setdefault(seed, found.metrics[ACCURACY])
                else:
                    scores.pop(seed, None)
    return spread(list(scores.values())) if len(scores) > 1 else None


def _hardware(store: Store, run: FoundRun) -> str | None:
    """Of the machine that a run was on; one that is nested has it from the run above it, if on the same machine."""
    ids = filter(None, (run.run_id, run.tags.get("mlflow.parentRunId")))
    like = {"gpus": [{"name": ""}]}
    machine = next(filter(None, (artifact_json(store, i, "environment/hardware.json", like) for i in ids)), None)
    if not machine:
        return None
    gpus = ", ".join(gpu["name"] for gpu in machine["gpus"])
    return gpus or f"{machine.get('cores')} cores, {machine.get('cpu')}"


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
