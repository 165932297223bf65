"""The model card: what a registered version says of itself, in Markdown (Mitchell et al., arXiv:1810.03993)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from fer_experiments.config import Config
from fer_experiments.data import Dataset
from fer_experiments.evaluation.bootstrap import Interval
from fer_experiments.registry.assembly import MEASURED, Calibration, Ensemble
from fer_experiments.registry.candidates import Choice, Refitted
from fer_experiments.registry.gate import Condition
from fer_experiments.registry.sealed import Outcome
from fer_experiments.terminal import markdown, number
from fer_experiments.tracking.models import UNCERTAIN

LIMITS = {
    "fer2013": (
        "FER2013 was gathered by an image search for emotion words; its labels are what annotators saw in a still "
        "face, not what a person felt, and many are disputed: people agree with them on about 65 % of the images "
        "(Goodfellow et al., arXiv:1307.0414).",
        "It names neither age, sex nor skin colour, so that differences in error between groups of people could not be "
        "measured here; expect them.",
        "Faces are gray, 48x48, roughly centred and cut to the face: other crops, profiles, masks or camera angles are "
        "outside what it was trained and tested on.",
    ),
    "demo": ("The faces are drawn by this program: nothing here says anything about people.",),
}
SPLITS = {"val": "validation", "test": "test"}
OTHER = ("Nothing is known here about how the data were gathered; look at them before the model is used.",)


@dataclass(frozen=True)
class Subject:
    """What a card is about. seed: of the refit that was taken; latency in ms.

    ensemble: what answers, and what else was tried.
    """

    name: str
    config: Config
    dataset: Dataset
    choice: Choice
    refits: list[Refitted]
    seed: int
    tested: Outcome
    conditions: list[Condition]
    mb: float
    latency_ms: float
    ensemble: list[Ensemble]
    calibration: Calibration


def card(subject: Subject) -> str:
    """The card as Markdown."""
    config, dataset, tested, gate = subject.config, subject.dataset, subject.tested, subject.config.gate
    assert gate is not None and config.promote is not None
    height, width = dataset.images.shape[1:]
    grouping = config.data.classes or {name: [name] for name in dataset.classes}
    best = subject.refits[0]
    sections = [
        f"# {subject.name}\n\nTells a face's expression: {_listed(dataset.classes)}. {config.promote.note}".rstrip(),
        "## Intended use\n\n"
        f"Single gray faces of {height}x{width} pixels (`fer predict` brings pictures to that). For research and for "
        "aggregate statistics; not for judging a person (hiring, policing, teaching, health): a still face does not "
        "tell what somebody feels.",
        "## Data\n\n"
        + "\n".join(f"- {name}: {_listed(members)}" for name, members in grouping.items())
        + f"\n- {config.data.source}, split {config.data.split}, cleaning {config.data.clean}, fingerprint "
        f"`{dataset.fingerprint[:16]}`\n\n"
        + _table(
            ("split", *dataset.classes),
            [(part, *(f"{counts[name]:,}" for name in dataset.classes)) for part, counts in dataset.counts.items()],
        ),
        "## Test split\n\n"
        f"{len(tested.test.labels):,} sealed images, opened {_times(tested.openings)} so far, this time included. "
        "95 % intervals by the bootstrap.\n\n"
        + _table(
            ("metric", "value", "95 % interval"),
            [(name, f"{s.value:.4f}", f"{s.low:.4f} to {s.high:.4f}") for name, s in tested.scores.items()],
        )
        + "\n\nWhat each emotion is taken for:\n\n"
        + _table(
            ("emotion", "images", *(f"as {name}" for name in dataset.classes)),
            [
                (row["emotion"], f"{row['images']:,}", *(f"{row[f'as {name}']:.1%}" for name in dataset.classes))
                for _, row in tested.emotions.iterrows()
            ],
        ),
        *_probabilities(subject),
        *_abstention(subject),
        "## Known biases and limits\n\n" + "\n".join(f"- {line}" for line in LIMITS.get(config.data.source, OTHER)),
        "## How it was chosen\n\n"
        f"Backbone {config.backbone.name} (frozen), head {config.head.name}. Out of {subject.choice.name}, ranked by "
        f"the mean of {subject.choice.objective}; seed {subject.seed} of {best.candidate.name} was taken.\n\n"
        + _table(
            ("config", subject.choice.objective, "values"),
            [
                (
                    r.candidate.name,
                    r.spread,
                    ", ".join(f"{k}={number(v) if isinstance(v, float) else v}" for k, v in r.candidate.values.items()),
                )
                for r in subject.refits
            ],
        )
        + _ensemble(subject.ensemble),
        f"## Gate: {gate.name}\n\n"
        + "\n".join(f"- {condition.asked}: {condition.found}" for condition in subject.conditions)
        + f"\n- {subject.mb:.1f} MB, {subject.latency_ms:.1f} ms for one image (median, where it was promoted)",
        f"Promoted {datetime.now(UTC):%Y-%m-%d}.",
    ]
    return "\n\n".join(sections) + "\n"


def _ensemble(ensemble: list[Ensemble]) -> str:
    """What answers, where heads were tried together."""
    if len(ensemble) == 1:
        return ""
    count = len(ensemble[0].runs)
    taken = f"The probabilities of {count} heads are averaged." if count > 1 else "One head alone answers."
    return f"\n\n{taken} On the validation split:\n\n" + _table(
        ("heads", *ensemble[0].scores),
        [(str(len(option.runs)), *(f"{value:.4f}" for value in option.scores.values())) for option in ensemble],
    )


def _probabilities(subject: Subject) -> list[str]:
    """A section: what the temperature has changed."""
    found, whens = subject.calibration.scores, [(split, when) for split in SPLITS for when in ("before", "after")]
    if not found:
        return []
    return [
        "## Probabilities\n\n"
        f"Their logarithms are divided by a temperature of {subject.ensemble[0].temperature:.3f}, fitted on the "
        "validation split; no label changes by it. On its run, `plots/calibration_before_test.png` and "
        "`plots/calibration_test.png` show how often they are right.\n\n"
        + _table(
            ("metric", *(f"{SPLITS[split]}, {when}" for split, when in whens)),
            [(name, *(f"{found[split][when][name]:.4f}" for split, when in whens)) for name in MEASURED],
        )
    ]


def _abstention(subject: Subject) -> list[str]:
    """A section: when it does not answer."""
    promoting, threshold = subject.config.promote, subject.ensemble[0].threshold
    if not threshold or promoting is None:
        return []
    return [
        f"## When it does not answer\n\nBelow a probability of {threshold:.4f} for every class its label is "
        f"`{UNCERTAIN}`: chosen on the validation split for an error of {promoting.abstain:g} at most in what it "
        "answers. The probabilities are given all the same.\n\n"
        + _table(
            ("split", "answered", "of that wrong"),
            [
                (SPLITS[split], f"{coverage:.1%}", f"{error:.2%}")
                for split, (coverage, error) in subject.calibration.answered.items()
            ],
        )
    ]


def score_line(name: str, score: Interval) -> str:
    """A metric with its interval, for the terminal."""
    return f"{name:28}{score.value:.4f}  ({score.low:.4f} to {score.high:.4f})"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    gap = "\N{NO-BREAK SPACE}" * 4  # MLflow's page leaves no space between columns
    return markdown([[f"{cell}{gap}" for cell in row] for row in (head, *rows)])
