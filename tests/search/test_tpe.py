"""TPE on KerasTuner's hyperparameters: what the sampler sees, and what comes of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fer_experiments.config import SweepConfig
from fer_experiments.search.oracle import ask, hyperparameters, make_oracle, tell
from fer_experiments.search.oracles import count
from fer_experiments.search.tpe import STARTUP, distribution, place, value

SPACE: dict[str, Any] = {
    "linear": {"type": "float", "min": -1.0, "max": 1.0},
    "log": {"type": "float", "min": 1e-6, "max": 1e-1, "sampling": "log"},
    "reverse": {"type": "float", "min": 0.1, "max": 10.0, "sampling": "reverse_log"},
    "steps": {"type": "float", "min": 0.0, "max": 0.7, "step": 0.1},
    "factors": {"type": "int", "min": 2, "max": 486, "step": 3, "sampling": "log"},
    "reverse factors": {"type": "int", "min": 3, "max": 192, "step": 2, "sampling": "reverse_log"},
    "int": {"type": "int", "min": 3, "max": 9},
    "log int": {"type": "int", "min": 16, "max": 100, "sampling": "log"},
    "lists": {"type": "choice", "values": [[], [32], [64, 32]]},
    "numbers": {"type": "choice", "values": [128, 32, 64]},
    "bool": {"type": "bool"},
    "only": {"type": "choice", "values": ["one"]},
}


def oracle_of(space: dict[str, Any], trials: int, seed: int = 0, direction: str = "max") -> Any:
    config = SweepConfig(name="t", oracle="tpe", seed=seed, space=space, max_trials=trials, direction=direction)
    return make_oracle(config)


def wellness(values: dict[str, Any]) -> float:
    return -abs(math.log10(values["log"]) + 3) - abs(values["linear"] - 0.5) + 0.5 * values["bool"]


def run(oracle: Any, trials: int, flying: int = 1) -> list[float]:
    scores, waiting = [], []
    for number in range(trials):
        waiting.append(ask(oracle, number))
        assert waiting[-1].status == "RUNNING"
        scores.append(wellness(waiting[-1].hyperparameters.values))
        if len(waiting) == flying:
            first = waiting.pop(0)
            tell(oracle, first, wellness(first.hyperparameters.values))
    return scores


@pytest.mark.parametrize("name", SPACE)
def test_places_and_values_are_inverse(name: str):
    hp = hyperparameters({name: SPACE[name]}).space[0]
    seen = distribution(hp)
    places = np.linspace(0, 1, 50) if count(hp) is None or name == "log int" else range(count(hp) or 0)
    values = [value(hp, x) for x in places]
    assert all(seen._contains(place(hp, v)) for v in values)
    if count(hp) is None:
        assert [place(hp, v) for v in values] == pytest.approx(list(places), abs=1e-6)
    else:
        assert [value(hp, place(hp, v)) for v in values] == values
        assert len(set(values)) == (count(hp) if name != "log int" else len(set(values)))
    entry = SPACE[name]
    if "min" in entry:
        assert all(entry["min"] <= v <= entry["max"] + 1e-9 for v in values)


def test_every_kind_of_hyperparameter_is_searched_and_learned():
    oracle = oracle_of(SPACE, 60)
    scores = run(oracle, 60)
    assert sum(scores[-15:]) / 15 > sum(scores[:STARTUP]) / STARTUP + 0.5
    for trial in oracle.trials.values():
        values = trial.hyperparameters.values
        assert 3 <= values["int"] <= 9 and 16 <= values["log int"] <= 100 and values["only"] == "one"
        assert type(values["int"]) is type(values["factors"]) is type(values["log int"]) is int


def test_it_beats_random_search():
    space = {name: SPACE[name] for name in ("log", "linear", "bool")}
    better = 0
    for seed in range(5):
        learned = max(run(oracle_of(space, 40, seed), 40, flying=4))
        config = SweepConfig(name="t", oracle="random", seed=seed, space=space, max_trials=40)
        better += learned > max(run(make_oracle(config), 40))
    assert better >= 4


def test_trials_in_flight_are_kept_away_from():
    """Ten that are asked at once spread wider than ten that are asked one after the other's score."""

    def last_ten(at_once: bool) -> np.floating[Any]:
        oracle, asked = oracle_of({"linear": SPACE["linear"]}, 100), []
        for number in range(40):
            trial = ask(oracle, number)
            asked.append(trial.hyperparameters.values["linear"])
            if number < 30 or not at_once:
                tell(oracle, trial, -abs(asked[-1]))
        return np.std(asked[30:])

    assert last_ten(at_once=True) > 1.2 * last_ten(at_once=False)


def test_optuna_is_silent(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder):
    run(oracle_of(SPACE, 15), 15)
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
    assert [str(w.message) for w in recwarn if not issubclass(w.category, DeprecationWarning)] == []
