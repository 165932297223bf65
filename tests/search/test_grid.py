"""The grid: every combination once, in its order, without a list of all of them."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import pytest

from fer_experiments.config import SweepConfig
from fer_experiments.search import oracles
from fer_experiments.search.oracle import ask, make_oracle

FEW = 5


def grid(space: dict[str, Any]) -> Any:
    return make_oracle(SweepConfig(name="test", oracle="grid", seed=0, space=space, max_trials=None))


def test_the_values_and_their_order_are_those_of_a_product():
    space = {
        "head.dense_widths": {"type": "choice", "values": [[], [32], [64, 32]]},
        "head.dropout": {"type": "float", "min": 0.0, "max": 0.5, "step": 0.25},
        "training.batch_size": {"type": "int", "min": 2, "max": 16, "step": 2, "sampling": "log"},
        "training.epochs": {"type": "int", "min": 3, "max": 9, "step": 3},
        "head.normalize": {"type": "bool"},
        "training.label_smoothing": {"type": "float", "min": 0.0, "max": 0.5},
    }
    tenths = [0.0, *(0.5 * (place + 0.5) / 10 for place in range(10))]
    levels = [["[]", "[32]", "[64, 32]"], [0.0, 0.25, 0.5], [2, 4, 8, 16], [3, 6, 9], [False, True], tenths]
    oracle, wanted = grid(space), list(itertools.product(*levels))
    for number in [*range(2 * len(tenths) + 1), len(wanted) - 1]:
        oracle.trials.update((str(n), None) for n in range(len(oracle.trials), number))
        values = oracle.populate_space("")["values"]
        assert list(values) == list(space) and [*values.values()] == pytest.approx([*wanted[number]])
    oracle.trials[str(number)] = None
    assert oracle.populate_space("") == {"status": "STOPPED"}


@pytest.mark.parametrize(
    ("entry", "first"),
    [
        ({"type": "float", "min": 0.0, "max": 1.0, "step": 1e-8}, [0.0, 1e-8, 2e-8, 3e-8, 4e-8]),
        ({"type": "int", "min": 1, "max": 10**8, "step": 1}, [1, 2, 3, 4, 5]),
    ],
    ids=["float", "int"],
)
def test_of_a_hundred_million_values_none_is_made_before_it_is_asked_for(
    entry: dict[str, Any], first: list[float], monkeypatch: pytest.MonkeyPatch
):
    made, level = list[int](), oracles.level

    def counted(hp: Any, index: int) -> Any:
        made.append(index)
        assert len(made) <= FEW, "a list of all of them would take gigabytes"
        return level(hp, index)

    monkeypatch.setattr(oracles, "level", counted)
    oracle = grid({"head.l2": entry})
    tracemalloc.start()
    try:
        asked = [ask(oracle, number).hyperparameters.values["head.l2"] for number in range(FEW)]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert asked == pytest.approx(first, abs=1e-12) and made == list(range(FEW))
    assert most < 2**20
