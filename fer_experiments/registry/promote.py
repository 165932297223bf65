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

import numpy as np

from fer_experiments import environment, tracking
from fer_experiments.config import Config, experiment, flatten, project_root, recorded, to_dict
from fer_experiments.config.commands import command, model_words
from fer_experiments.errors import Refused, UserError
from fer_experiments.executors.executor import open_executor
from fer_experiments.experiment.prepare import Preparations, Prepared
from fer_experiments.experiment.record import describe_run, parameters
from fer_experiments.features.cache import exact_features
from fer_experiments.registry.candidates import Choice, Refitted, check_inputs, choose, refit_all
from fer_experiments.registry.card import Subject, card, score_line
from fer_experiments.registry.gate import Condition, Rival, check_gate, judge
from fer_experiments.registry.sealed import Outcome, open_and_test, recorded_probabilities
from fer_experiments.registry.versions import crown, only_one_promotes
from fer_experiments.terminal import fit, say
from fer_experiments.tracking import Store, models
from fer_experiments.tracking.digests import digests
from fer_experiments.tracking.models import CHAMPION, Version
from fer_experiments.training.fit import predict
from fer_experiments.training.whole import CHECKED, ROUGH, TOLERANCE, assemble, compare

Echo = Callable[[str], None]

WARM_UP, TIMED = 5, 50  # single images
SAME = 1e-4  # of probabilities of one model in two processes, in float32


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
        for orphan in tracking.close_orphans(store):
            echo(f"{fit(orphan.name)}: left running by a process that died, closed as KILLED")
        executor = stack.enter_context(open_executor(config.compute, echo))
        preparations = Preparations(executor, echo)
        check_inputs(choice, preparations)
        check_gate(config.gate, preparations.dataset(chosen).classes)
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
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        images, said = _write(taken, prepared, run, refits[0].runs[seed], folder, echo)
        classifier = models.load_classifier(folder)
        mb = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
        median, p95 = _latency(lambda: classifier.probabilities(images[:1]))
        run.log_metrics({"model/mb": mb, "model/latency_ms": median, "model/latency_p95_ms": p95})
        tested = open_and_test(run, taken, prepared.dataset, classifier.probabilities)
        _show_test(tested, echo)
        conditions = _ask_gate(config, tested, mb, median, before, run, echo)
        failed = [f"{c.asked} (it is {c.found})" for c in conditions if not c.holds]
        described = card(Subject(name, taken, prepared.dataset, choice, refits, seed, tested, conditions, mb, median))
        run.log_text(described, "model_card.md")
        if failed:
            return None, failed
        if config.promote.dry_run:
            after = f"and take the champion's place from version {before.number}" if before else "as the champion"
            echo(f"dry run: it would be registered as {name} {after}")
            return None, []
        files = digests(folder)
        run.log_folder(folder, "model")
    tags = _tags(taken, prepared, choice, seed) | {
        f"fer.test_{metric}": f"{score.value:.4f} ({score.low:.4f} to {score.high:.4f})"
        for metric, score in tested.scores.items()
    }
    version = models.add_version(store, name, run.id, files, tags, described)
    _check_registered(store, version, images, said, echo)
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
    for purpose, verb in (
        ("tell expressions", ["predict", "photos/", *words]),
        ("answer over HTTP", ["serve", *words]),
        ("list the models", ["models"]),
        ("go back", ["rollback", *words]),
    ):
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
    scores = tracking.Run(run.store, best.runs[seed]).metrics
    run.log_metrics({k: v for k, v in scores.items() if k.startswith("final/val_")})
    run.log_params(flatten(experiment(to_dict(best.candidate.config))) | {"training.seed": seed})


def _show_test(tested: Outcome, echo: Echo) -> None:
    echo(f"test split of dataset {tested.test.fingerprint[:8]}: opening number {tested.openings} on record")
    for metric, score in tested.scores.items():
        echo(f"  {score_line(metric, score)}")
    for _, row in tested.emotions.iterrows():
        echo(f"  {row['emotion']:28}{row['error_rate']:.4f} of {row['images']:,} taken for another class")


def _ask_gate(
    config: Config,
    tested: Outcome,
    mb: float,
    latency_ms: float,
    champion: Version | None,
    run: tracking.Run,
    echo: Echo,
) -> list[Condition]:
    """The conditions, shown and recorded."""
    assert config.promote is not None and config.gate is not None
    rival = None
    if champion is not None:
        same = champion.tags.get("fer.dataset") == tested.test.fingerprint
        theirs = recorded_probabilities(run.store, champion.run_id, tested.test) if same else None
        rival = Rival(f"version {champion.number}", theirs)
    conditions = judge(config.gate, tested, mb, latency_ms, rival)
    echo(f"gate={config.gate.name}:")
    for condition in conditions:
        echo(f"  {condition}")
    verdict = "passed" if all(condition.holds for condition in conditions) else "refused"
    run.log_json([vars(condition) for condition in conditions], "gate.json")
    run.set_tags({"fer.gate": verdict, "fer.dry_run": str(config.promote.dry_run).lower()})
    return conditions


def _write(
    config: Config, prepared: Prepared, run: tracking.Run, refit: str, folder: Path, echo: Echo
) -> tuple[np.ndarray, np.ndarray]:
    """Writes the model; returns at least CHECKED images and what it says of them, which stored features say too.

    run: of the promotion. refit: the id of the run whose head is taken.

    Raises:
        UserError: it says something else, or there are too few images to tell.
    """
    dataset = prepared.dataset
    rows = np.concatenate([dataset.val, dataset.train])
    if len(rows) < CHECKED:
        raise UserError(f"data={config.data.name}: {len(rows)} images; it takes {CHECKED} to check a model on")
    rows = np.sort(rows[: 2 * CHECKED])
    head = tracking.load_head(run.store, refit)
    network = assemble(config.backbone, dataset.images.shape[1:], head, prepared.features.views, len(dataset.classes))
    trained = parameters(head.trainable_weights)
    run.log_metrics({"model/parameters": network.count_params(), "model/trainable_parameters": trained})
    models.save_classifier(network, dataset.classes, folder)
    said = models.load_classifier(folder).probabilities(dataset.images[rows])
    stored, rough = predict(head, prepared.features, rows), config.features.precision != "float32"
    if rough:  # what is assembled is told from what is not by features that are as exact as it
        exact = exact_features(dataset.images[rows], config.backbone, config.features)
        compare("the assembled model", said, predict(head, exact, np.arange(len(rows))))
    agreement = compare("the assembled model", said, stored, ROUGH if rough else TOLERANCE, mean=rough)
    limit = f"; with features in float32 within {TOLERANCE:g}" if rough else f", allowed {TOLERANCE:g}"
    echo(
        f"assembled: agrees with the stored features on {agreement.images} images (largest difference of a "
        f"probability {agreement.largest:.2g}, mean {agreement.mean:.2g}{limit})"
    )
    return dataset.images[rows], said


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


def _tags(config: Config, prepared: Prepared, choice: Choice, seed: int) -> dict[str, str]:
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
    return {key: value for key, value in tags.items() if value}


def _check_registered(store: Store, version: Version, images: np.ndarray, expected: np.ndarray, echo: Echo) -> None:
    """Loads the registered version in a fresh process; one that is not what was tested leaves the registry again."""
    try:
        got = models.predict_registered(store, version, images)
        compare(f"{version.uri}, loaded in a fresh process,", got, expected, SAME)
    except BaseException:
        models.drop_version(store, version)
        raise
    echo(f"registered as {version.uri}: loaded in a fresh process, it gives the same on {len(images)} images")
