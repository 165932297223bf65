"""Where a model is weak: slices of the opened test split, and some of its images corrupted, beside the champion."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fer_experiments import tracking
from fer_experiments.config import PromoteConfig
from fer_experiments.errors import UserError
from fer_experiments.evaluation import robustness
from fer_experiments.evaluation.corruptions import CORRUPTIONS, KINDS, corrupt
from fer_experiments.evaluation.faces import face_sheet
from fer_experiments.evaluation.robustness import UNCHANGED, Part, measured
from fer_experiments.evaluation.slices import slices
from fer_experiments.registry.gate import Rival
from fer_experiments.registry.sealed import Outcome, recorded_probabilities
from fer_experiments.terminal import Echo
from fer_experiments.tracking import Store, models
from fer_experiments.tracking.models import Version

Predict = Callable[[np.ndarray], np.ndarray]  # uint8 [n, h, w] to probabilities [n, classes]

SEED = 0  # of the images that are corrupted, and of how
SHOWN = 5  # slices on the terminal


def rival_of(store: Store, champion: Version | None, tested: Outcome) -> Rival | None:
    """The champion to compare with, None where there is none yet; it has probabilities of the same test split alone."""
    if champion is None:
        return None
    run = tracking.find_run(store, champion.run_id)
    digest = run.tags.get(tracking.IMAGES["test"]) if run else None
    same = digest == tested.test.digest if digest else champion.tags.get("fer.dataset") == tested.test.fingerprint
    theirs = recorded_probabilities(store, champion.run_id, tested.test, by_id=not digest) if same else None
    missing = "what it said of these images is not on record" if same else "it was tested on another test split"
    return Rival(f"version {champion.number}", theirs, champion, missing)


def find_weaknesses(
    run: tracking.Run, config: PromoteConfig, tested: Outcome, predict: Predict, rival: Rival | None, echo: Echo
) -> list[Part]:
    """A model's accuracy on each slice and, where `promote.corruptions` asks for them, each corruption, recorded.

    predict: of that model; the rival's is asked on the same pictures, if it was tested on the same split.
    """
    parts = _on_slices(config, tested, rival)
    accuracy = tested.scores["accuracy"].value
    run.log_csv(robustness.parts_table(parts), "metrics/slices_test.csv")
    run.log_figure(robustness.slices_figure(parts, accuracy), "plots/slices_test.png")
    echo(f"the weakest of {len(parts)} slices (accuracy {accuracy:.4f} on all):")
    for part in sorted(parts, key=lambda part: part.accuracy.value)[:SHOWN]:
        echo(f"  {_line(part)}")
    if config.corruptions == 0:
        return parts
    corrupted = _on_corruptions(run, config, tested, predict, rival, echo)
    columns = robustness.parts_table(corrupted)
    kinds = [CORRUPTIONS.get(name, (name, 0)) for name in columns["name"]]
    columns.insert(1, "kind", [kind for kind, _ in kinds])
    columns.insert(2, "strength", [strength for _, strength in kinds])
    run.log_csv(columns, "metrics/corruptions_test.csv")
    run.log_figure(robustness.corruptions_figure(corrupted), "plots/corruptions_test.png")
    run.log_metrics({"final/test_corrupted_accuracy": float(columns["accuracy"][1:].mean())})
    return [*parts, *corrupted]


def _on_slices(config: PromoteConfig, tested: Outcome, rival: Rival | None) -> list[Part]:
    test, ours = tested.test, tested.probabilities
    theirs = rival.probabilities if rival else None

    def part(name: str, rows: np.ndarray) -> Part:
        beside = None if theirs is None else theirs[rows]
        return measured(name, test.labels[rows], ours[rows], beside, resamples=config.resamples)

    return [part(name, rows) for name, rows in slices(test.images, test.emotions, test.near_training).items()]


def _on_corruptions(
    run: tracking.Run, config: PromoteConfig, tested: Outcome, predict: Predict, rival: Rival | None, echo: Echo
) -> list[Part]:
    """UNCHANGED, then each of CORRUPTIONS; a line a kind is shown as they come."""
    rows = np.random.default_rng(SEED).permutation(len(tested.test.labels))[: config.corruptions]
    images, labels = tested.test.images[rows], tested.test.labels[rows]
    champion = _champion(run.store, rival, echo)

    def part(name: str, ours: np.ndarray, theirs: np.ndarray | None) -> Part:
        return measured(name, labels, ours, theirs, resamples=config.resamples)

    as_they_are = rival.probabilities[rows] if champion and rival and rival.probabilities is not None else None
    found = [part(UNCHANGED, tested.probabilities[rows], as_they_are)]
    echo(f"{len(rows):,} of the test images corrupted, accuracy by strength{' (the champion)' if champion else ''}:")
    echo(f"  {UNCHANGED:16}{_told(found)}")
    examples: list[np.ndarray] = []
    for kind in KINDS:
        start = len(found)
        for name in (name for name, (of, _) in CORRUPTIONS.items() if of == kind):
            pictures = corrupt(images, name, SEED)
            examples.append(pictures[len(found) % len(pictures)])
            found.append(part(name, predict(pictures), champion(pictures) if champion else None))
        echo(f"  {kind:16}{_told(found[start:])}")
    sheet = face_sheet(np.stack(examples), [name.replace("_", " ") for name in CORRUPTIONS], columns=5)
    run.log_figure(sheet, "plots/corrupted_faces_test.png")
    return found


def _champion(store: Store, rival: Rival | None, echo: Echo) -> Predict | None:
    """What the champion says of pictures; None where it has none to compare, or, which is said, no files to be used."""
    if rival is None or rival.probabilities is None or rival.version is None:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            return models.load_version(store, rival.version, Path(folder)).probabilities
    except UserError as error:
        echo(f"the champion is not asked about corrupted images: {error}")
        return None


def _line(part: Part) -> str:
    beside = "" if part.champion is None else f", the champion {part.champion:.4f}"
    accuracy = part.accuracy
    return f"{part.name:26}{accuracy.value:.4f}  ({accuracy.low:.4f} to {accuracy.high:.4f}) of {part.images:,}{beside}"


def _told(parts: Sequence[Part]) -> str:
    return "  ".join(f"{p.accuracy.value:.4f}" + (f" ({p.champion:.4f})" if p.worse else "") for p in parts)
