"""The model card: what a registered version says of itself, in Markdown (Mitchell et al., arXiv:1810.03993)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fer_experiments import environment
from fer_experiments.config import Config, flatten, project_root, to_dict, yaml_of
from fer_experiments.config.commands import command, override
from fer_experiments.data import Dataset
from fer_experiments.evaluation.bootstrap import Interval
from fer_experiments.evaluation.corruptions import CORRUPTIONS, KINDS, STRENGTHS
from fer_experiments.evaluation.robustness import UNCHANGED, Part
from fer_experiments.registry.candidates import Choice, Refitted
from fer_experiments.registry.gate import Condition
from fer_experiments.registry.sealed import Outcome
from fer_experiments.terminal import markdown, number
from fer_experiments.tracking import FoundRun

LONGEST = 5000  # characters: of a version's description in MLflow's databases; PostgreSQL refuses more
SECTION = "\n\n## "
KEPT = (
    "Intended use",
    "In the European Union",
    "Data",
    "Test split",
    "Known biases and limits",
    "How it is made again",
)
OPENINGS = 10  # of the test split that are listed
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
EUROPE = (
    "Inferring emotions of people at work and in education is prohibited by Article 5(1)(f) of Regulation (EU) "
    "2024/1689 since 2 February 2025, except for medical or safety reasons.",
    "Elsewhere, a system that is to infer emotions may be a high-risk one (Annex III, point 1(c)).",
    "Who deploys one is to inform the people exposed to it (Article 50(3)), and processes their data under the law of "
    "data protection.",
)
ORIGIN = {
    "fer2013": (
        "FER2013 comes of a web image search, made by P. L. Carrier and A. Courville for a Kaggle contest of 2013 "
        "(arXiv:1307.0414), and was given out under the contest's rules. Rights in the pictures remain with whoever "
        "made them, and nothing says that the people in them agreed: read the terms of your copy before the model is "
        "used for more than research.",
    ),
    "demo": ("The faces are drawn by this program, and come under its licence.",),
}
OTHER_ORIGIN = ("Where the pictures come from, and under what terms, is not known here.",)
OTHER = ("Nothing is known here about how the data were gathered; look at them before the model is used.",)


@dataclass(frozen=True)
class Subject:
    """What a card is about. seed: of the refit that was taken. parts: slices and corruptions. mb: of the files, in 10^6
    bytes; latency in ms."""

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


def card(subject: Subject) -> str:
    """The card as Markdown."""
    sections = (
        *(_head, _use, _data, _test, _emotions, _slices, _corruptions, _openings),
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
    return f"# {subject.name}\n\nTells a face's expression: {_listed(classes)}. {config.promote.note}".rstrip()


def _use(subject: Subject) -> str:
    height, width = subject.dataset.images.shape[1:]
    return (
        "## Intended use\n\n"
        f"Single gray faces of {height}x{width} pixels: a crop that one face fills (`fer predict` brings pictures to "
        "that size, and looks for no face). For research and for aggregate statistics; not for judging a person "
        "(hiring, policing, teaching, health): a still face does not tell what somebody feels.\n\n"
        "## In the European Union\n\n" + "\n".join(f"- {line}" for line in EUROPE)
    )


def _data(subject: Subject) -> str:
    config, dataset = subject.config, subject.dataset
    grouping = config.data.classes or {name: [name] for name in dataset.classes}
    lines = [f"{name}: {_listed(members)}" for name, members in grouping.items()]
    lines.append(
        f"{config.data.source}, split {config.data.split}, cleaning {config.data.clean}, fingerprint "
        f"`{dataset.fingerprint[:16]}`"
    )
    lines += ORIGIN.get(config.data.source, OTHER_ORIGIN)
    lines.append(f"backbone {config.backbone.name}, weights `{config.backbone.weights}`, under their own terms")
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
    return f"{moment:%Y-%m-%d %H:%M}", f"`{run.run_id[:8]}`", kind, user


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
        f"Backbone {config.backbone.name} (frozen), head {config.head.name}. Out of {choice.name}, ranked by "
        f"the mean of {choice.objective}; seed {subject.seed} of {best.candidate.name} was taken.\n\n"
        + _table(("config", choice.objective, "values"), rows)
    )


def _gate(subject: Subject) -> str:
    assert subject.config.gate is not None
    return (
        f"## Gate: {subject.config.gate.name}\n\n"
        + "\n".join(f"- {condition.asked}: {condition.found}" for condition in subject.conditions)
        + f"\n- {subject.mb:.1f} MB, {subject.latency_ms:.1f} ms for one image (median, where it was promoted)"
    )


def _again(subject: Subject) -> str:
    """The command that makes the model again, and what it was made with."""
    config, choice = subject.config, subject.choice
    of = f"sweep={choice.sweep_id}" if choice.sweep_id else f"run={choice.candidates[0].run_id}"
    git, known = environment.git_state(project_root()), environment.versions()
    code = f"fer-experiments {known.get('fer-experiments', '')}, commit {git.commit or 'unknown'}"
    made = [f"{code}{', with uncommitted changes (`environment/git.diff` of the run)' if git.dirty else ''}"]
    lock = project_root() / "requirements.lock"
    if lock.is_file():
        digest = hashlib.sha256(lock.read_bytes()).hexdigest()
        made.append(f"`environment/{lock.name}` of the run, sha256 `{digest[:16]}`")
    words = " ".join(
        f"{name} {known[name]}" for name in ("python", "keras", "tensorflow", "jax", "numpy") if name in known
    )
    lines = "\n".join(f"- {line}" for line in (*made, words))
    again = command("promote", of, *_differing(config), config=config)
    return (
        f"## How it is made again\n\n    {again}\n\nRefits that are on record are taken from there.\n\n{lines}\n\n"
        f"Promoted {datetime.now(UTC):%Y-%m-%d}."
    )


def _differing(config: Config) -> list[str]:
    """The overrides of the sections promote and gate that a command does not have without them."""
    words = []
    for name in ("promote", "gate"):
        section = to_dict(config)[name]
        known = flatten(yaml_of(name, section["name"]))
        words += [f"{name}={section['name']}"] if section["name"] != "default" else []
        for key, value in flatten(section).items():
            if key not in ("name", "dry_run") and value != {} and value != known.get(key):
                words.append(("" if key in known else "+") + override(f"{name}.{key}", value))
    return words


def score_line(name: str, score: Interval) -> str:
    """A metric with its interval, for the terminal."""
    return f"{name:28}{score.value:.4f}  ({score.low:.4f} to {score.high:.4f})"


def _interval(found: Interval, sign: str = "") -> str:
    return f"{found.low:{sign}.4f} to {found.high:{sign}.4f}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    gap = "\N{NO-BREAK SPACE}"  # MLflow's page leaves no space between columns, nor after a table
    return markdown([[f"{cell}{4 * gap}" for cell in row] for row in (head, *rows)]) + f"\n\n{gap}"
