"""What values and trials are in another sweep's space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fer_experiments.search.oracle import hyperparameters
from fer_experiments.search.oracles import count, level
from fer_experiments.search.recorded import find_state
from fer_experiments.search.state import State, digest_of
from fer_experiments.search.tpe import place
from fer_experiments.search.transfer import as_asked, as_raw, known_of, refusal, would_help
from fer_experiments.search.trials import Trial, check_raw

L2 = {"type": "float", "min": 1e-6, "max": 1e-1, "sampling": "log"}
WIDTHS = {"type": "choice", "values": [[], [32], [64, 32]]}
STEPS: list[dict[str, Any]] = [
    {"type": "float", "min": 0.0, "max": 0.7, "step": 0.1},
    {"type": "int", "min": 2, "max": 486, "step": 3, "sampling": "log"},
    {"type": "int", "min": 3, "max": 192, "step": 2, "sampling": "reverse_log"},
    {"type": "int", "min": 3, "max": 9, "step": 2},
]


@pytest.mark.parametrize(
    ("entry", "value", "raw"),
    [
        ({"type": "bool"}, True, True),
        ({"type": "bool"}, 1, None),
        (WIDTHS, [32], "[32]"),
        (WIDTHS, [16], None),
        (WIDTHS, None, None),
        ({"type": "choice", "values": [None, "a"]}, None, "null"),
        ({"type": "choice", "values": [0, 1]}, True, None),
        ({"type": "choice", "values": ["a", "b"]}, "b", "b"),
        (L2, 1e-6, 1e-6),
        (L2, 0.2, None),
        (L2, "1e-3", None),
        (L2, True, None),
        (L2, float("nan"), None),
        ({"type": "float", "min": 0.5, "max": 2.0}, 1, 1.0),
        ({"type": "int", "min": 1, "max": 4}, 4, 4),
        ({"type": "int", "min": 1, "max": 4}, 5, None),
        ({"type": "int", "min": 1, "max": 4}, 2.0, None),
        ({"type": "float", "min": 1e-9, "max": 1.0, "sampling": "log"}, 0, None),
        ({"type": "float", "min": 1e-9, "max": 1.0, "sampling": "log"}, 1 + 1e-12, 1.0),
        ({"type": "float", "min": 1e-9, "max": 1.0, "sampling": "reverse_log"}, 1 + 1e-12, 1.0),
        ({"type": "float", "min": 0.0, "max": 1.0}, -1e-12, 0.0),
        ({"type": "float", "min": -1.0, "max": 0.0}, 1e-12, 0.0),
        (STEPS[0], 0.25, None),
        (STEPS[1], 100, None),
        (STEPS[3], 4, None),
    ],
)
def test_a_value_is_what_the_oracle_would_ask_or_outside_the_space(entry: dict[str, Any], value: Any, raw: Any):
    made = as_raw(entry, value)
    assert (made, type(made)) == (raw, type(raw))


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "float", "min": low, "max": high, "sampling": sampling}
        for low, high in ((1e-9, 1.0), (1e-3, 1e3), (0.5, 0.9))
        for sampling in ("linear", "log", "reverse_log")
    ]
    + [{"type": "float", "min": 0.0, "max": 0.7}, {"type": "float", "min": -0.3, "max": 0.3}, STEPS[0]],
)
def test_what_is_taken_is_what_a_state_may_have(entry: dict[str, Any]):
    """Values at and about the ends of ranges, of which some are outside."""
    low, high = entry["min"], entry["max"]
    taken = 0
    for end in (low, high):
        for by in (0, 1e-13, -1e-13, 1e-10, -1e-10, 1e-8, -1e-8, 0.1, -0.1):
            for value in (end + by, end * (1 + by)):
                if (raw := as_raw(entry, value)) is not None:
                    check_raw({"x": entry}, {"x": raw})
                    place(hyperparameters({"x": entry}).space[0], raw)
                    taken += 1
    assert taken


@pytest.mark.parametrize("entry", STEPS)
def test_every_step_of_an_oracle_is_in_the_space(entry: dict[str, Any]):
    hp = hyperparameters({"x": entry}).space[0]
    values = [level(hp, place) for place in range(count(hp) or 0)]
    assert values and [as_raw(entry, value) for value in values] == values


BASE = {"head.l2": 1e-3, "head.dropout": 0.5, "head.dense_widths": [32], "backbone.name": "pocket"}
HAD = {"head.l2": 1e-2, "head.dense_widths": [32]}
SPACE = {"head.l2": L2, "head.dense_widths": WIDTHS}


def fitted(space: dict[str, Any], theirs: dict[str, Any], had: dict[str, Any], **changes: Any) -> Any:
    """A trial of a sweep over `theirs` in `space`."""
    other = State("", "other", {**BASE, "sweep.space": theirs})
    raw = as_asked({**BASE, **changes, "sweep.space": space}, other, Trial(number=0, values=had))
    if raw is not None:
        check_raw(space, raw)
    return raw


def test_a_trial_fits_the_same_a_wider_and_a_narrower_space():
    assert fitted(SPACE, SPACE, HAD) == {"head.l2": 1e-2, "head.dense_widths": "[32]"}
    assert fitted({**SPACE, "head.l2": {**L2, "min": 1e-9}}, SPACE, HAD) is not None
    assert fitted({**SPACE, "head.l2": {**L2, "max": 1e-2}}, SPACE, HAD) is not None
    assert fitted({**SPACE, "head.l2": {**L2, "max": 9e-3}}, SPACE, HAD) is None
    assert fitted({**SPACE, "head.dense_widths": {"type": "choice", "values": [[], [64]]}}, SPACE, HAD) is None


def test_what_the_other_had_fixed_is_the_value_of_its_trials():
    dropout = {"head.dropout": {"type": "float", "min": 0.2, "max": 0.6}}
    assert fitted({**SPACE, **dropout}, SPACE, HAD) == {**fitted(SPACE, SPACE, HAD), "head.dropout": 0.5}
    assert fitted({**SPACE, "head.dropout": {"type": "float", "min": 0.2, "max": 0.4}}, SPACE, HAD) is None
    assert fitted({"backbone": {"type": "choice", "values": ["facenet", "pocket"]}}, {}, {}) == {"backbone": "pocket"}
    assert fitted({"backbone": {"type": "choice", "values": ["facenet"]}}, {}, {}) is None
    assert fitted({"features.engine": {"type": "choice", "values": ["tensorflow", "jax"]}}, {}, {}) == {
        "features.engine": "tensorflow"  # of a sweep that is older than the key
    }


def test_what_is_searched_no_longer_must_be_what_is_fixed_now():
    narrow = {"head.l2": L2}
    assert fitted(narrow, SPACE, HAD) == {"head.l2": 1e-2}
    assert fitted(narrow, SPACE, {**HAD, "head.dense_widths": [64, 32]}) is None
    backbones = {"backbone": {"type": "choice", "values": ["facenet", "pocket"]}}
    assert fitted(narrow, {**narrow, **backbones}, {"head.l2": 1e-2, "backbone": "pocket"}) == {"head.l2": 1e-2}
    assert fitted(narrow, {**narrow, **backbones}, {"head.l2": 1e-2, "backbone": "facenet"}) is None


def test_conditions_hold_in_either_space():
    heads = {"head": {"type": "choice", "values": ["conv", "linear"]}}
    filters = {"head.filters": {"type": "choice", "values": [[8], [4]], "when": {"head": "conv"}}}
    space = {**heads, **filters}
    assert fitted(space, space, {"head": "linear"}) == {"head": "linear", "head.filters": "[8]"}
    assert fitted(space, space, {"head": "conv", "head.filters": [4]}) == {"head": "conv", "head.filters": "[4]"}
    always = {**heads, "head.filters": {**filters["head.filters"], "when": {}}}
    assert fitted(always, space, {"head": "linear"}) is None, "it had none"
    assert fitted(space, always, {"head": "linear", "head.filters": [4]}) is not None
    assert fitted(space, heads, {"head": "conv"}) is None, "what its group's YAML says is not known"


SAME = {"sweep.objective": "final/val_accuracy", "fer.dataset": "d", "sweep.oracle": "tpe", "sweep.space": SPACE}


def other(*trials: Trial, **changes: Any) -> State:
    return State("quick-1", "quick", {**BASE, **SAME, **changes}, trials=list(trials))


def ended(number: int, status: str = "finished", score: float | None = 0.5, **more: Any) -> Trial:
    raw = {"head.l2": 1e-2, "head.dense_widths": "[32]", **more}
    metrics = {f"final/val_accuracy_{end}": 0.5 for end in ("low", "high")}
    more = {"metrics": metrics, "epochs": 2, "best_epoch": 1, "seconds": 1.0, "run_id": "f" * 32}
    return Trial(number=number, status=status, score=score, told=score, values=HAD, raw=raw, **more)


def test_an_oracle_is_told_what_came_to_its_end():
    trials = [ended(0), ended(1, "pruned"), ended(2, "failed", None), ended(3, "repeated"), ended(4, "asked", None)]
    assert known_of({**BASE, **SAME}, other(*trials)) == [{"raw": trials[0].raw, "score": 0.5}]
    granted = [ended(number, **{"tuner/epochs": epochs}) for number, epochs in enumerate((3, 20, 20))]
    assert len(known_of({**BASE, **SAME}, other(*granted, **{"sweep.max_epochs": 20}))) == 2


def test_scores_of_something_else_are_refused_with_what_differs():
    own = {**BASE, **SAME}
    assert refusal(own, other()) is None
    assert refusal(own, other(**{"sweep.objective": "final/val_loss"})) == (
        "quick-1 has another objective, final/val_loss and not final/val_accuracy"
    )
    assert refusal({**own, "data.limit": 3}, other(**{"fer.dataset": "e"})) == (
        "quick-1 has another dataset, e and not d: they differ in data.limit"
    )


def test_a_start_is_suggested_where_it_would_be_accepted(tmp_path: Path):
    known, own = other(ended(0)), {**BASE, **SAME, "head.dropout": 0.1}
    assert would_help(own, known)
    for changes in ({"sweep.oracle": "random"}, {"sweep.warm_start": "x"}, {"fer.dataset": "e"}):
        assert not would_help({**own, **changes}, known)
    assert not would_help(own, other())
    known.id = f"quick-{digest_of(known.identity)}"
    known.order = [0, 0]
    known.save(tmp_path / known.id)
    said = find_state(tmp_path, "quick", own, fresh=False)[2]
    assert said.endswith(
        f"{known.id} differs in head.dropout; sweep.warm_start={known.id} begins with what that one knows"
    )
