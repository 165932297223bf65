"""The model card: what a registered version says of itself, in Markdown (Mitchell et al., arXiv:1810.03993)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fer_experiments.backbones.weights import weights_told
from fer_experiments.config import Config
from fer_experiments.data import Dataset
from fer_experiments.evaluation.bootstrap import Interval
from fer_experiments.evaluation.calibration import told
from fer_experiments.evaluation.corruptions import CORRUPTIONS, KINDS, STRENGTHS
from fer_experiments.evaluation.robustness import UNCHANGED, Part
from fer_experiments.registry.again import how_again
from fer_experiments.registry.assembly import MEASURED, Calibration, Ensemble
from fer_experiments.registry.candidates import Choice, Refitted
from fer_experiments.registry.final_fit import how_fitted
from fer_experiments.registry.gate import Condition
from fer_experiments.registry.sealed import Outcome
from fer_experiments.registry.terms import EUROPE, LIMITS, ORIGIN, OTHER, OTHER_ORIGIN
from fer_experiments.terminal import fit, markdown, number
from fer_experiments.tracking import FoundRun
from fer_experiments.tracking.models import UNCERTAIN

LONGEST = 5000  # characters: of a version's description in MLflow's databases; PostgreSQL refuses more
SECTION = "\n\n## "
KEPT = (
    *("Intended use", "In the European Union", "Data", "Test split", "When it does not answer"),
    *("Known biases and limits", "How it is made again"),
)
OPENINGS = 10  # of the test split that are listed
SPLITS = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Subject:
    """What a card is about. seed: of the refit that was taken. parts: slices and corruptions. mb: of the files, in 10^6
    bytes; latency in ms. ensemble: what answers, and what else was tried."""

    name: str
    config: Config
    dataset: Dataset
    choice: Choice
    refits: list[Refitted]
    seed: int
    tested: Outcome
    parts: list[Part]
    conditions: list[Condition]
    mb: float
    latency_ms: float
    ensemble: list[Ensemble]
    calibration: Calibration


def card(subject: Subject) -> str:
    """The card as Markdown."""
    sections = (
        *(_head, _use, _data, _test, _probabilities, _abstention, _emotions, _slices, _corruptions, _openings),
        *(_limits, _chosen, _gate, _again),
    )
    return "\n\n".join(text for section in sections if (text := section(subject))) + "\n"


def fitted(text: str, run_id: str) -> str:
    """A card that a registry takes: in the place of the longest sections stands where they are, until it is short."""
    sections = text.split(SECTION)
    titles = [section.partition("\n")[0] for section in sections]
    for place in sorted(range(1, len(sections)), key=lambda i: (titles[i] in KEPT, -len(sections[i]))):
        if len(SECTION.join(sections)) <= LONGEST:
            break
        sections[place] = f"{titles[place]}\n\nIn `model_card.md` among the artifacts of run `{run_id}`."
    return SECTION.join(sections)[:LONGEST]


def _head(subject: Subject) -> str:
    config, classes = subject.config, subject.dataset.classes
    assert config.promote is not None
    return (
        f"# {subject.name}\n\nTells a face's expression: {_listed(classes)}. {_plain(config.promote.note)}".rstrip()
        + "".join(f"\n\nIt was {line}." for line in how_fitted(subject.ensemble[0]))
    )


def _use(subject: Subject) -> str:
    height, width = subject.dataset.images.shape[1:]
    return (
        "## Intended use\n\n"
        f"Single gray faces of {height}x{width} pixels: a crop that one face fills (`fer predict` and `fer serve` "
        "bring pictures to that size, and look for faces only where they are told to). A constant picture is no face, "
        "and its label says nothing. For research and for aggregate statistics; not for judging a person (hiring, "
        "policing, teaching, health): a still face does not tell what somebody feels.\n\n"
        "## In the European Union\n\n" + "\n".join(f"- {line}" for line in EUROPE)
    )


def _data(subject: Subject) -> str:
    config, dataset = subject.config, subject.dataset
    grouping = config.data.classes or {name: [name] for name in dataset.classes}
    lines = [f"{_plain(name)}: {_listed(members)}" for name, members in grouping.items()]
    lines.append(
        f"{_plain(config.data.source)}, split {config.data.split}, cleaning {config.data.clean}, fingerprint "
        f"`{dataset.fingerprint[:16]}`"
    )
    lines += ORIGIN.get(config.data.source, OTHER_ORIGIN)
    lines.append(f"backbone {_plain(config.backbone.name)}, {_plain(weights_told(config.backbone))}")
    counts = [(part, *(f"{of[name]:,}" for name in dataset.classes)) for part, of in dataset.counts.items()]
    told = "\n".join(f"- {line}" for line in lines)
    return f"## Data\n\n{told}\n\n" + _table(("split", *dataset.classes), counts)


def _test(subject: Subject) -> str:
    tested = subject.tested
    return (
        "## Test split\n\n"
        f"{len(tested.test.labels):,} sealed images, opened {_times(tested.openings)} so far, this time included. "
        "95 % intervals by the bootstrap.\n\n"
        + _table(
            ("metric", "value", "95 % interval"),
            [(name, f"{s.value:.4f}", _interval(s)) for name, s in tested.scores.items()],
        )
    )


def _openings(subject: Subject) -> str:
    last = subject.tested.ledger[-OPENINGS:]
    shown = f", the last {len(last)} of {subject.tested.openings}" if len(last) < subject.tested.openings else ""
    rows = [_opening(run) for run in last]
    return f"## Openings of the test split{shown}\n\n" + _table(("opened", "by run", "kind", "user"), rows)


def _opening(run: FoundRun) -> tuple[str, ...]:
    moment = datetime.fromtimestamp(run.started / 1000, UTC)
    kind, user = (run.tags.get(tag, "") for tag in ("fer.kind", "mlflow.user"))
    return f"{moment:%Y-%m-%d %H:%M}", run.run_id[:8], kind, user


def _emotions(subject: Subject) -> str:
    classes = subject.dataset.classes
    rows = [
        (row["emotion"], f"{row['images']:,}", *(f"{row[f'as {name}']:.1%}" for name in classes))
        for _, row in subject.tested.emotions.iterrows()
    ]
    head = ("emotion", "images", *(f"as {name}" for name in classes))
    return "## What each emotion is taken for\n\n" + _table(head, rows)


def _slices(subject: Subject) -> str:
    parts = [part for part in subject.parts if part.name not in (UNCHANGED, *CORRUPTIONS)]
    head, beside = ("slice", "images", "accuracy", "95 % interval"), ("champion", "worse by")
    rows = [(p.name, f"{p.images:,}", f"{p.accuracy.value:.4f}", _interval(p.accuracy), *_beside(p)) for p in parts]
    return "## Slices of the test split\n\n" + _table((*head, *(beside if parts[0].worse else ())), rows)


def _beside(part: Part) -> tuple[str, ...]:
    return (f"{part.champion:.4f}", f"{part.worse.value:+.4f} ({_interval(part.worse, '+')})") if part.worse else ()


def _corruptions(subject: Subject) -> str:
    found = {part.name: part for part in subject.parts}
    if UNCHANGED not in found:
        return ""
    plain = found[UNCHANGED]
    rows = []
    for kind, (_, strengths) in KINDS.items():
        cells = [_accuracy(found[name]) for name, (of, _) in CORRUPTIONS.items() if of == kind]
        rows.append((kind, *cells, *[""] * (STRENGTHS - len(strengths))))
    champion = "; in brackets the champion's" if plain.worse else ""
    return (
        f"## Corrupted images\n\nAccuracy on {plain.images:,} of the test images by strength, {_accuracy(plain)} as "
        f"they are{champion}. Intervals are in `metrics/corruptions_test.csv` of the run.\n\n"
        + _table(("corruption", *map(str, range(1, STRENGTHS + 1))), rows)
    )


def _accuracy(part: Part) -> str:
    return f"{part.accuracy.value:.3f}" + (f" ({part.champion:.3f})" if part.worse else "")


def _limits(subject: Subject) -> str:
    return "## Known biases and limits\n\n" + "\n".join(
        f"- {line}" for line in LIMITS.get(subject.config.data.source, OTHER)
    )


def _chosen(subject: Subject) -> str:
    config, choice, best = subject.config, subject.choice, subject.refits[0]
    unfreeze = config.training.unfreeze
    how = "frozen" if unfreeze is None else f"fine-tuned with its head, training.unfreeze={_plain(unfreeze)}"
    if config.training.from_features:
        how += f", on stored features of {_plain(config.backbone.layers[0])}"
    rows = [
        (
            r.candidate.name,
            r.spread,
            ", ".join(f"{k}={number(v) if isinstance(v, float) else v}" for k, v in r.candidate.values.items()),
        )
        for r in subject.refits
    ]
    return (
        "## How it was chosen\n\n"
        f"Backbone {_plain(config.backbone.name)} ({how}), head {config.head.name}. Out of {_plain(choice.name)}, "
        f"ranked by the mean of {choice.objective}; seed {subject.seed} of {_plain(best.candidate.name)} was taken.\n\n"
        + _table(("config", choice.objective, "values"), rows)
        + _ensemble(subject.ensemble)
    )


def _gate(subject: Subject) -> str:
    assert subject.config.gate is not None
    return (
        f"## Gate: {_plain(subject.config.gate.name)}\n\n"
        + "\n".join(f"- {_plain(f'{condition.asked}: {condition.found}')}" for condition in subject.conditions)
        + f"\n- {subject.mb:.1f} MB, {subject.latency_ms:.1f} ms for one image (median, where it was promoted)"
    )


def _again(subject: Subject) -> str:
    return how_again(subject.config, subject.choice)


def _ensemble(ensemble: list[Ensemble]) -> str:
    """What answers, where heads were tried together."""
    if len(ensemble) == 1:
        return ""
    count = len(ensemble[0].runs)
    taken = f"The probabilities of {count} heads are averaged." if count > 1 else "One head alone answers."
    return f"\n\n{taken} On the validation split{ensemble[0].chosen_by}:\n\n" + _table(
        ("heads", *ensemble[0].scores),
        [(str(len(option.runs)), *(f"{value:.4f}" for value in option.scores.values())) for option in ensemble],
    )


def _probabilities(subject: Subject) -> str:
    """What the temperature has changed."""
    found, whens = subject.calibration.scores, [(split, when) for split in SPLITS for when in ("before", "after")]
    if not found:
        return ""
    return (
        "## Probabilities\n\n"
        f"Their logarithms are divided by a temperature of {told(subject.ensemble[0].temperature)}, fitted on "
        f"the validation split{subject.ensemble[0].chosen_by}; no label changes by it. On its run, "
        "`plots/calibration_before_test.png` and `plots/calibration_test.png` show how often they are right.\n\n"
        + _table(
            ("metric", *(f"{SPLITS[split]}, {when}" for split, when in whens)),
            [(name, *(f"{found[split][when][name]:.4f}" for split, when in whens)) for name in MEASURED],
        )
    )


def _abstention(subject: Subject) -> str:
    """When it does not answer."""
    promoting, ensemble = subject.config.promote, subject.ensemble[0]
    if promoting is None or promoting.abstain is None:
        return ""
    if not ensemble.threshold:
        least = f"an error of {promoting.abstain:g} was allowed, and on the validation split it errs less often"
        return f"## When it does not answer\n\nIt always answers: {least}."
    return (
        f"## When it does not answer\n\nBelow a probability of {ensemble.threshold:.4f} for every class its label is "
        f"`{UNCERTAIN}`: chosen on the validation split{ensemble.chosen_by} for an error of {promoting.abstain:g} at "
        "most in what it answers. The probabilities are given all the same.\n\n"
        + _table(
            ("split", "answered", "of that wrong"),
            [
                (SPLITS[split], f"{coverage:.1%}", f"{error:.2%}" if coverage else "")
                for split, (coverage, error) in subject.calibration.answered.items()
            ],
        )
    )


def score_line(name: str, score: Interval) -> str:
    """A metric with its interval, for the terminal."""
    return f"{name:28}{score.value:.4f}  ({score.low:.4f} to {score.high:.4f})"


def _interval(found: Interval, sign: str = "") -> str:
    return f"{found.low:{sign}.4f} to {found.high:{sign}.4f}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(map(_plain, names))


def _plain(name: str) -> str:
    """A name of anyone's in Markdown, as it is written, on one line."""
    return re.sub(r"([\\`*\[\]<>&#~]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", fit(name))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    gap = "\N{NO-BREAK SPACE}"  # MLflow's page leaves no space between columns, nor after a table
    return markdown([[f"{_plain(cell)}{4 * gap}" for cell in row] for row in (head, *rows)]) + f"\n\n{gap}"
