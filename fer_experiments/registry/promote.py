"""The way of a sweep's best config into the registry."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_experiments import environment, tracking
from fer_experiments.config import TRAIN_VAL, Config, DataConfig, experiment, flatten, project_root, recorded, to_dict
from fer_experiments.config.commands import command, model_words
from fer_experiments.errors import Refused, UserError
from fer_experiments.evaluation.robustness import Part
from fer_experiments.evaluation.slices import slice_names
from fer_experiments.executors import forks
from fer_experiments.executors.executor import open_executor
from fer_experiments.experiment.prepare import Preparations, Prepared
from fer_experiments.experiment.record import describe_run
from fer_experiments.registry.assembly import check_choices, choose_ensemble, record_calibration, write_model
from fer_experiments.registry.candidates import Choice, Refitted, check_inputs, choose, refit_all
from fer_experiments.registry.card import Subject, card, fitted, score_line
from fer_experiments.registry.final_fit import fit_on_both
from fer_experiments.registry.gate import Condition, Rival, check_gate, judge
from fer_experiments.registry.rehearsal import rehearse
from fer_experiments.registry.sealed import Outcome, open_and_test
from fer_experiments.registry.versions import crown, only_one_promotes
from fer_experiments.registry.weaknesses import find_weaknesses, rival_of
from fer_experiments.terminal import Echo, say
from fer_experiments.tracking import Store, models
from fer_experiments.tracking.digests import digests
from fer_experiments.tracking.models import CHAMPION, Version

if TYPE_CHECKING:
    from fer_experiments.tracking.classifier import FaceClassifier


WARM_UP, TIMED = 5, 50  # single images
ASKED = 16  # images that `fer serve` is asked about


def promote(config: Config, *, sweep: str | None = None, run_id: str | None = None, echo: Echo = say) -> Version | None:
    """Refits, assembles, tests, and registers the model; returns its version, None of a dry run.

    Args:
        config: with its sections promote and gate; what is promoted brings data, backbone and head along.
        sweep: id or name, None for the last one. run_id: of a single run, instead.

    Raises:
        UserError: whatever its user must mend; nothing is registered then. Refused: the gate's conditions that fail.
    """
    store = tracking.connect_existing(config, write=True)
    with tracking.said_in_a_line(store):
        return _run(config, store, sweep, run_id, echo)


def _run(config: Config, store: Store, sweep: str | None, run_id: str | None, echo: Echo) -> Version | None:
    assert config.promote is not None and config.gate is not None
    choice = choose(config, store, sweep, run_id)
    chosen = choice.candidates[0].config
    store = store.of(chosen.data.task)
    name = models.model_name(chosen.data)
    with ExitStack() as stack:
        if not config.promote.dry_run:
            stack.enter_context(only_one_promotes(config, name))
            forks.prepare()  # it imports, while heads are fitted, what the version will be served with
        tracking.close_orphans(store, echo)
        executor = stack.enter_context(open_executor(config.compute, echo))
        preparations = Preparations(executor, echo)
        dataset = preparations.dataset(chosen)
        names = slice_names(dataset.emotions, dataset.near_training is not None)
        check_gate(config.gate, dataset.classes, names, corrupt=config.promote.corruptions != 0)
        check_choices(config.promote, dataset, [candidate.config for candidate in choice.candidates])
        check_inputs(choice, preparations)
        with tracking.start_run(
            store,
            "promotion",
            f"promotion of {choice.name}",
            tags={"fer.sweep_id": choice.sweep_id or "", "fer.model": name},
        ) as run:
            version, failed = _promote(config, choice, preparations, name, run, echo)
    if failed:
        raise Refused(f"{name}: refused by gate={config.gate.name}, the registry is as it was: {'; '.join(failed)}")
    return version


def _promote(
    config: Config, choice: Choice, preparations: Preparations, name: str, run: tracking.Run, echo: Echo
) -> tuple[Version | None, list[str]]:
    """The version, and the conditions that fail."""
    assert config.promote is not None
    store = run.store
    before = models.find_version(store, name, CHAMPION)
    refits = refit_all(choice, preparations, run, echo)
    seed = refits[0].best_seed(choice.direction)
    taken = refits[0].candidate.config
    prepared = preparations.of(taken)
    run.set_tags(prepared.tags)
    _record_choice(refits, choice, seed, run, echo)
    describe_run(run, prepared.dataset, recorded(taken))
    options = choose_ensemble(run, taken, prepared, refits, choice.direction, echo)
    if config.promote.refit == TRAIN_VAL:
        options[0] = fit_on_both(run, options[0], refits, preparations, echo)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        images = write_model(taken, prepared, options[0], folder, echo)
        classifier = models.load_classifier(folder)
        mb = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
        median, p95 = _latency(lambda: classifier.probabilities(images[:1]))
        run.log_metrics({"model/mb": mb, "model/latency_ms": median, "model/latency_p95_ms": p95})
        trained = [tracking.Run(store, name).metrics.get("model/trainable_parameters") for name in options[0].runs]
        run.log_metrics({"model/parameters": classifier.network.count_params()})
        if None not in trained:  # by a refit of an earlier version
            run.log_metrics({"model/trainable_parameters": sum(filter(None, trained))})
        tested = open_and_test(run, taken, prepared.dataset, classifier.probabilities)
        _show_test(tested, echo)
        calibration = record_calibration(run, options[0], tested, echo)
        rival = rival_of(store, before, tested)
        parts = find_weaknesses(run, config.promote, tested, classifier.probabilities, rival, echo)
        conditions = _ask_gate(config, tested, mb, median, rival, parts, run, echo)
        failed = [f"{c.asked}: {c.found}" for c in conditions if not c.holds]
        subject = Subject(
            name, taken, prepared.dataset, choice, refits, seed, tested, parts, conditions, mb, median, options,
            calibration,
        )  # fmt: skip
        described = card(subject)
        run.log_text(described, "model_card.md")
        if failed:
            return None, failed
        if config.promote.dry_run:
            after = f"and take the champion's place from version {before.number}" if before else "as the champion"
            echo(f"dry run: it would be registered as {name} {after}")
            return None, []
        files = digests(folder)
        run.log_folder(folder, "model")
    tags = _tags(taken, prepared, choice, seed, tested) | options[0].tags
    version = models.add_version(store, name, run.id, files, tags, fitted(described, run.id))
    _check_served(config, taken.data, version, store, classifier, images[:ASKED])
    echo(f"registered as {version.uri}: `fer serve` says of {ASKED} images what was tested")
    try:
        crown(store, version, before)
    except UserError:
        models.drop_version(store, version)
        raise
    run.set_tags({"fer.version": str(version.number)})
    was = f" in place of version {before.number}, which is previous now" if before else ""
    echo(f"{name} version {version.number} is the champion{was}")
    words = model_words(taken.data)
    echo("next:")
    commands = {
        "tell expressions": ["predict", "photos/", *words],
        "answer over HTTP": ["serve", *words],
        "list the models": ["models"],
        **({"go back": ["rollback", *words]} if before else {}),
    }
    for purpose, verb in commands.items():
        echo(f"  {purpose:20}  {command(*verb, config=config)}")
    return version, []


def _record_choice(refits: list[Refitted], choice: Choice, seed: int, run: tracking.Run, echo: Echo) -> None:
    """Which config was taken, and why, on the terminal and on the run."""
    best = refits[0]
    echo(f"{choice.name}, by the mean of {choice.objective}:")
    for refitted in refits:
        echo(f"  {refitted.candidate.name:12} {refitted.spread}")
    echo(f"taken: {best.candidate.name} with seed {seed}, its best on the validation split")
    rows = [{"config": r.candidate.name, "run_id": r.candidate.run_id, "mean": r.mean, **vars(r)} for r in refits]
    run.log_json([{k: v for k, v in row.items() if k != "candidate"} for row in rows], "refits.json")
    run.log_params(flatten(experiment(to_dict(best.candidate.config))) | {"training.seed": seed})


def _show_test(tested: Outcome, echo: Echo) -> None:
    echo(f"test split {tested.test.digest[:8]}: opening number {tested.openings} on record")
    for metric, score in tested.scores.items():
        echo(f"  {score_line(metric, score)}")
    for _, row in tested.emotions.iterrows():
        echo(f"  {row['emotion']:28}{row['error_rate']:.4f} of {row['images']:,} taken for another class")


def _ask_gate(
    config: Config,
    tested: Outcome,
    mb: float,
    latency_ms: float,
    rival: Rival | None,
    parts: list[Part],
    run: tracking.Run,
    echo: Echo,
) -> list[Condition]:
    """The conditions, shown and recorded."""
    assert config.promote is not None and config.gate is not None
    conditions = judge(config.gate, tested, mb, latency_ms, rival, parts)
    echo(f"gate={config.gate.name}:")
    for condition in conditions:
        echo(f"  {condition}")
    verdict = "passed" if all(condition.holds for condition in conditions) else "refused"
    run.log_json([vars(condition) for condition in conditions], "gate.json")
    run.set_tags({"fer.gate": verdict, "fer.dry_run": str(config.promote.dry_run).lower()})
    return conditions


def _latency(call: Callable[[], object]) -> tuple[float, float]:
    """Median and 95th percentile in ms of a call, after a warm-up."""
    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(TIMED):
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times), float(np.quantile(times, 0.95))


def _tags(config: Config, prepared: Prepared, choice: Choice, seed: int, tested: Outcome) -> dict[str, str]:
    git = environment.git_state(project_root())
    sections = experiment(to_dict(config))
    tags = {
        **prepared.tags,
        "fer.sweep_id": choice.sweep_id,
        "fer.from": choice.sweep_id or choice.name,
        "fer.backbone_name": config.backbone.name,
        "fer.config": json.dumps(sections | {"training": sections["training"] | {"seed": seed}}),
        "fer.git_commit": git.commit,
        "fer.git_dirty": None if git.dirty is None else json.dumps(git.dirty),
        "fer.user": tracking.user(),
        "fer.promoted": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    scores = {
        f"fer.test_{metric}": f"{score.value:.4f} ({score.low:.4f} to {score.high:.4f})"
        for metric, score in tested.scores.items()
    }
    return {key: value for key, value in tags.items() if value} | scores


def _check_served(
    config: Config, data: DataConfig, version: Version, store: Store, classifier: FaceClassifier, images: np.ndarray
) -> None:
    """Asks the registered version through `fer serve`; one that is not what was tested leaves the registry again."""
    try:
        rehearse(config, data, version, classifier, images)
    except BaseException:
        models.drop_version(store, version)
        raise
