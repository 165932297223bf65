"""A space that cannot be searched is refused before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fer_experiments.compose import compose
from fer_experiments.config import Config
from fer_experiments.errors import UserError
from fer_experiments.space import check_space, decode

BASE = compose(["sweep=quick"])


def with_sweep(**changes: Any) -> Config:
    assert BASE.sweep is not None
    return replace(BASE, sweep=replace(BASE.sweep, **changes))


@pytest.mark.parametrize(
    ("path", "entry", "message"),
    [
        ("head.l3", {"type": "float", "min": 0, "max": 1}, "head.l3: no such config path; did you mean head.l2"),
        ("head.l2", {"type": "float", "min": 1.0, "max": 1.0}, "min 1.0 must be less than max 1.0"),
        ("head.l2", {"type": "float", "min": 2.0, "max": 1.0}, "min 2.0 must be less than max 1.0"),
        ("head.l2", {"type": "float", "min": 0.0, "max": 1.0, "sampling": "log"}, "needs min greater than 0"),
        ("head.l2", {"type": "float", "max": 1.0}, "a float needs min"),
        ("head.l2", {"type": "float", "min": 0.0, "max": 1.0, "values": [1]}, "values: no key of a float"),
        ("head.l2", {"type": "number"}, "type: number: choose one of float, int, choice, bool"),
        ("head.l2", 3, "choose one of float"),
        ("head.l2", {"type": "float", "min": "a", "max": 1.0}, "min: a is not a number"),
        ("training.epochs", {"type": "int", "min": 0.5, "max": 2}, "min: 0.5 is not a whole number"),
        ("head.l2", {"type": "float", "min": 0.0, "max": 1.0, "step": 0}, "step 0 must be greater than 0"),
        ("head.l2", {"type": "float", "min": 0.1, "max": 1.0, "sampling": "cubic"}, "sampling: cubic: choose one of"),
        ("head.dense_widths", {"type": "choice", "values": []}, "at least one value"),
        ("head.dense_widths", {"type": "choice", "values": [["a"]]}, "head.dense_widths"),
        (
            "head.dense_widths",
            {"type": "choice", "values": [[64], [], [64]]},
            "values: [64] given twice; say each once",
        ),
    ],
)
def test_a_bad_entry_names_its_key_and_the_remedy(path: str, entry: Any, message: str):
    with pytest.raises(UserError) as caught:
        check_space(with_sweep(space={path: entry}))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {}}, "sweep.space is empty"),
        ({"max_trials": None}, "the random oracle never ends by itself"),
        ({"max_trials": None, "oracle": "tpe"}, "the tpe oracle never ends by itself"),
        ({"objective": "val_accuracy"}, "choose one of final/val_accuracy"),
        ({"objective": "final/val_loss"}, "say min"),
        ({"direction": "min"}, "say max"),
    ],
)
def test_a_bad_sweep_is_refused(changes: dict[str, Any], message: str):
    with pytest.raises(UserError) as caught:
        check_space(with_sweep(**changes))
    assert message in str(caught.value)


def test_lists_travel_through_the_oracle_as_json():
    space = {"head.dense_widths": {"type": "choice", "values": [[], [64, 32]]}, "head.l2": {"type": "float"}}
    assert decode(space, {"head.dense_widths": "[64, 32]", "head.l2": 0.1, "tuner/epochs": 3}) == {
        "head.dense_widths": [64, 32],
        "head.l2": 0.1,
    }
