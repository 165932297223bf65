"""The model card: what it says, and that a registry takes it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fer_experiments.config.compose import compose
from fer_experiments.evaluation.bootstrap import evaluate
from fer_experiments.evaluation.corruptions import CORRUPTIONS
from fer_experiments.evaluation.robustness import UNCHANGED, Part, measured
from fer_experiments.evaluation.slices import emotion_errors
from fer_experiments.registry.assembly import MEASURED, Calibration, Ensemble
from fer_experiments.registry.candidates import Candidate, Choice, Refitted
from fer_experiments.registry.card import LONGEST, Subject, card, fitted
from fer_experiments.registry.gate import Condition
from fer_experiments.registry.sealed import Outcome
from fer_experiments.tracking import FoundRun

LABELS = np.arange(210) % 7
EMOTIONS = np.array(["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"])
SAID = np.eye(7)[np.where(np.arange(210) % 9, LABELS, 0)]


def opened(number: int) -> FoundRun:
    tags = {"fer.kind": "promotion", "mlflow.user": "ada"}
    return FoundRun(f"{number:032d}", "x", "FINISHED", {}, {}, tags, 1_700_000_000_000 + number * 86_400_000, None)


def parts(champion: bool, corrupted: bool) -> list[Part]:
    theirs = np.eye(7)[LABELS] if champion else None
    names = ["emotion_sad", "near_twin", *([UNCHANGED, *CORRUPTIONS] if corrupted else [])]
    return [measured(name, LABELS, SAID, theirs, resamples=20) for name in names]


FIGURES = dict.fromkeys(MEASURED, 0.25)
CALIBRATION = Calibration(
    {split: {"before": FIGURES, "after": FIGURES} for split in ("val", "test")},
    {"val": (0.9, 0.01), "test": (0.875, 0.0125)},
)


def subject(
    *overrides: str,
    champion: bool = True,
    corrupted: bool = True,
    openings: int = 3,
    threshold: float = 0.0,
    classes: tuple[str, ...] = tuple(EMOTIONS),
    epochs: tuple[int, ...] = (),
) -> Subject:
    """Of a sweep on seven emotions of FER2013."""
    config = compose(["data=fer2013_seven", "backbone=facenet", "promote=default", "gate=default", *overrides])
    candidate = Candidate("trial 4", "a" * 32, config, {"head.l2": 1e-4}, {})
    choice = Choice("sweep facenet-1", [candidate], "final/val_accuracy", "max", "facenet-1")
    test: Any = SimpleNamespace(labels=LABELS, classes=tuple(EMOTIONS), fingerprint="f" * 64)
    table = emotion_errors(np.array(classes)[LABELS], LABELS, SAID, classes)
    ledger = [opened(number) for number in range(openings)]
    scores = evaluate(LABELS, SAID, resamples=20)
    counts = {"train": dict.fromkeys(classes, 3000)}
    dataset: Any = SimpleNamespace(
        classes=classes, images=np.zeros((1, 48, 48), np.uint8), fingerprint="f" * 64, counts=counts
    )
    return Subject(
        "fer-seven", config, dataset, choice, [Refitted(candidate, {0: 0.9, 1: 0.8}, {})], 0,
        Outcome(test, SAID, scores, {}, table, openings, ledger), parts(champion, corrupted),
        [Condition(f"recall of {classes[0]} at least 0.5", "0.9", True)], 90.0, 12.0,
        [Ensemble(("b" * 32,), [], LABELS, SAID, 1.25, threshold, epochs)],
        CALIBRATION if threshold else Calibration({}, {}),
    )  # fmt: skip


def section(text: str, title: str) -> str:
    (found,) = [part for part in text.split("\n## ") if part.startswith(title)]
    return found


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_what_a_temperature_and_a_threshold_do_is_said_where_there_are_some():
    text = card(subject("promote.abstain=0.02", threshold=0.75))
    assert "a temperature of 1.250, fitted on the validation split" in section(text, "Probabilities")
    told = section(text, "When it does not answer")
    assert "Below a probability of 0.7500" in told and "an error of 0.02 at most" in told
    assert rows(told)[-1] == ["test", "87.5%", "1.25%"]
    plain = card(subject())
    assert "## Probabilities" not in plain and "## When it does not answer" not in plain


def test_a_temperature_at_its_bound_and_a_threshold_that_never_holds_back_are_said():
    found = subject("promote.abstain=0.02", threshold=0.75)
    text = card(replace(found, ensemble=[replace(found.ensemble[0], temperature=0.2, threshold=0.0)]))
    assert "a temperature of 0.200 (the least that is allowed: the fit would go on)" in section(text, "Probabilities")
    told = section(text, "When it does not answer")
    assert "It always answers: an error of 0.02 was allowed" in told and "Below" not in told
    short = fitted(text, "r")
    assert "It always answers" in short, "however short it is made"


def test_a_head_that_has_learned_from_the_validation_images_has_no_score_on_them():
    told = card(subject("promote.abstain=0.02", "promote.refit=train+val", threshold=0.75, epochs=(7, 7, 5)))
    assert "It was fitted on train and val together, for 7, 5 epochs" in told
    assert "what is registered has no validation score" in fitted(told, "r"), "however short it is made"
    for title in ("Probabilities", "When it does not answer"):
        assert "on the validation split, by the refits on train alone" in section(told, title).replace("the\n", "the ")
    assert "on train alone" not in card(subject("promote.abstain=0.02", threshold=0.75))


def test_slices_and_corruptions_stand_beside_the_champions():
    text = card(subject())
    head, _, sad, _ = rows(section(text, "Slices of the test split"))
    assert head == ["slice", "images", "accuracy", "95 % interval", "champion", "worse by"]
    accuracy = np.mean(SAID.argmax(axis=1) == LABELS)
    assert sad[:3] == ["emotion_sad", "210", f"{accuracy:.4f}"] and sad[4] == "1.0000"
    corrupted = section(text, "Corrupted images")
    assert f"Accuracy on 210 of the test images by strength, {accuracy:.3f} (1.000) as they are" in corrupted
    assert rows(corrupted)[2] == ["noise", *[f"{accuracy:.3f} (1.000)"] * 5]
    assert rows(corrupted)[-1] == ["mirror", f"{accuracy:.3f} (1.000)", "", "", "", ""]


def test_without_a_champion_and_without_corruptions_it_says_less():
    text = card(subject(champion=False, corrupted=False))
    assert rows(section(text, "Slices of the test split"))[0] == ["slice", "images", "accuracy", "95 % interval"]
    assert "Corrupted images" not in text and "\n\n\n" not in text


def test_the_last_openings_of_the_test_split_are_listed():
    text = card(subject(openings=12))
    assert "opened 12 times so far" in section(text, "Test split")
    listed = rows(section(text, "Openings of the test split, the last 10 of 12\n"))[2:]
    assert len(listed) == 10 and listed[0] == ["2023-11-16 22:13", "00000000", "promotion", "ada"]
    assert "Openings of the test split\n" in card(subject(openings=2))


def test_names_of_anyones_are_shown_as_they_are_written():
    names = ("a|b", "<img src=x>", "`c`", "d\n\n## Gate: passed", "[e](http://x)", "_f_ *g* &lt; ~~h~~", "snake_case")
    text = card(subject(classes=names))
    shown = ["a|b", r"\<img src=x\>", r"\`c\`", r"d\\n\\n\#\# Gate: passed", r"\[e\](http://x)"]
    shown += [r"\_f\_ \*g\* \&lt; \~\~h\~\~", "snake_case"]
    assert f"Tells a face's expression: {', '.join(shown)}." in text
    assert f"- {shown[1]}: {shown[1]}\n" in section(text, "Data")
    head, _, *told = [line.split(" | ") for line in section(text, "Data").splitlines() if line[:1] == "|"]
    assert [cell.strip(" |\N{NO-BREAK SPACE}") for cell in head][1:] == [shown[0].replace("|", r"\|"), *shown[1:]]
    assert {len(row) for row in told} == {len(head)}
    emotions = section(text, "What each emotion is taken for")
    assert emotions.count("<") == emotions.count(r"\<") == 2, "as an emotion, and as what one is taken for"
    assert f"- recall of {shown[0]} at least 0.5: 0.9" in section(text, "Gate: default")
    assert text.count("\n## ") == card(subject()).count("\n## ")
    noted = subject()
    forged = "Fine.\n\n## Gate: strict __passed__"
    parts = {"promote": replace(noted.config.promote, note=forged), "gate": replace(noted.config.gate, name="<b>")}  # type: ignore[type-var]
    noted = card(replace(noted, config=replace(noted.config, **parts)))
    assert r" Fine.\\n\\n\#\# Gate: strict \_\_passed\_\_" in noted and noted.count("\n## ") == text.count("\n## ")
    assert r"## Gate: \<b\>" in noted


def test_no_password_is_in_it():
    text = card(subject("tracking.uri='postgresql://me:hunter2@host/db?password=hunter2'"))
    assert "me:***@host" in section(text, "How it is made again") and "hunter2" not in text


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((), "Backbone facenet (frozen), head"),
        (
            ("training=finetune", "training.unfreeze=mixed_7a"),
            "Backbone facenet (fine-tuned with its head, training.unfreeze=mixed_7a), head",
        ),
    ],
)
def test_what_learned_is_said(overrides: tuple[str, ...], said: str):
    assert said in section(card(subject(*overrides)), "How it was chosen")


def test_what_a_european_user_and_a_user_of_the_data_must_know_is_there():
    text = card(subject())
    for said in ("Article 5(1)(f)", "2024/1689", "Article 50(3)", "crop that one face fills", "arXiv:1307.0414"):
        assert said in text, said
    assert "A constant picture is no face" in section(text, "Intended use")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((), "promote sweep=facenet-1"),
        (("gate=strict", "promote.seeds=5"), "promote sweep=facenet-1 promote.seeds=5 gate=strict"),
        (("+gate.worse.emotion_sad=0.01", "gate.worse.every=0.1"), "gate.worse={every:0.1,emotion_sad:0.01}"),
        (("promote.refit=train+val",), "promote sweep=facenet-1 promote.refit=train+val"),
        (("promote.dry_run=true", "promote.corruptions=null"), "promote sweep=facenet-1 promote.corruptions=null"),
    ],
)
def test_the_command_that_makes_it_again_says_what_was_said(overrides: tuple[str, ...], words: str):
    text = section(card(subject(*overrides)), "How it is made again")
    (line,) = [line for line in text.splitlines() if line.startswith("    ")]
    given = shlex.split(line[line.index("sweep=facenet-1") :])[1:]
    assert words in shlex.join(["promote", "sweep=facenet-1", *given]).replace("'", "")
    again = compose(["promote=default", "gate=default", *given])
    wanted = subject(*overrides).config
    assert again.gate == wanted.gate and again.promote == replace(wanted.promote, dry_run=False)  # type: ignore[type-var]
    assert "requirements.lock` of the run, sha256 `" in text and "commit " in text


def test_a_registry_takes_it_however_much_there_is_to_say():
    """PostgreSQL refuses a longer description."""
    text = card(subject())
    assert len(text) > LONGEST >= len(short := fitted(text, "r" * 32))
    assert short.count("\n## ") == text.count("\n## ") and "Article 5(1)(f)" in short
    left_out = f"In `model_card.md` among the artifacts of run `{'r' * 32}`."
    assert left_out in section(short, "Slices of the test split") and "| accuracy" in section(short, "Test split")
    endless = text.replace("ada", "a" * 9000)
    assert len(fitted(endless, "r")) <= LONGEST and "| accuracy" in fitted(endless, "r")
    assert len(fitted(f"# x\n\n## Data\n\n{'a' * 9000}\n\n## Gate\n", "r")) < 150
    small = "# x\n\n## a\n\ntext\n"
    assert fitted(small, "r") == small
