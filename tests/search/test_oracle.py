"""Real KerasTuner oracles, several trials in flight, stopped anywhere and gone on with from plain data."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Container
from typing import Any

import keras_tuner as kt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_experiments.config import SweepConfig
from fer_experiments.errors import UserError
from fer_experiments.search.identity import seed_of
from fer_experiments.search.oracle import ask, hyperparameters, make_oracle, replay, tell
from fer_experiments.search.oracles import Guided, at
from fer_experiments.search.space import ORACLES, decode

SPACE: dict[str, Any] = {
    "head.l2": {"type": "float", "min": 1e-6, "max": 1e-1, "sampling": "log"},
    "head.dense_widths": {"type": "choice", "values": [[], [32], [64, 32]]},
    "head.dropout": {"type": "float", "min": 0.0, "max": 0.5},
    "training.epochs": {"type": "int", "min": 1, "max": 4},
    "head.normalize": {"type": "bool"},
}
SIX = {path: SPACE[path] for path in ("head.dense_widths", "head.normalize")}
NINETY_SIX = {**SIX, "training.batch_size": {"type": "int", "min": 1, "max": 16}}
PLANE = {path: SPACE[path] for path in ("head.l2", "head.dropout")}
ALL = list(ORACLES)
Asked = list[dict[str, Any]]


def sweep(oracle: str, **changes: Any) -> SweepConfig:
    settings = {"space": SPACE, "max_trials": 6, "max_epochs": 4, **changes}
    if oracle == "hyperband":
        settings["max_trials"] = None
    return SweepConfig(name="test", oracle=oracle, seed=0, **settings)


def score(config: SweepConfig, raw: dict[str, Any]) -> float:
    values = decode(config.space, raw)
    return 1.0 - abs(math.log10(values.get("head.l2", 1e-3)) + 3) - 0.1 * len(values.get("head.dense_widths", []))


def wander(config: SweepConfig, steps: int, seed: int, flying_at_most: int = 6, stops: Container[int] = ()) -> Asked:
    """The raw values asked in `steps` random asks and tells; before the steps in `stops`, of an oracle made anew."""
    oracle, trials, order, flying = make_oracle(config), [], [], {}
    for step in range(steps):
        if step in stops:
            oracle = make_oracle(config)
            flying = replay(oracle, json.loads(json.dumps(trials)), json.loads(json.dumps(order)))
        chance = random.Random(f"{seed} {step}")
        number = len(trials)
        if len(flying) < flying_at_most and (not flying or chance.random() < 0.6):
            trial = ask(oracle, number)
            if trial.status == "RUNNING":
                raw = dict(trial.hyperparameters.values)
                trials.append((raw, None if number % 5 == 1 else score(config, raw)))
                flying[number] = trial
                order.append(number)
                continue
            assert flying or trial.status == "STOPPED"
        if flying:
            told = chance.choice(sorted(flying))
            tell(oracle, flying.pop(told), trials[told][1])
            order.append(told)
    return [raw for raw, _ in trials]


def until_stopped(config: SweepConfig, at_most: int = 1000) -> Asked:
    """The raw values of the trials asked, each told before the next."""
    oracle, asked = make_oracle(config), []
    while len(asked) < at_most and (trial := ask(oracle, len(asked))).status == "RUNNING":
        asked.append(dict(trial.hyperparameters.values))
        tell(oracle, trial, score(config, asked[-1]))
    return asked


def distinct(asked: Asked) -> int:
    return len({json.dumps(raw, sort_keys=True) for raw in asked})


@pytest.mark.parametrize("space", [SPACE, SIX], ids=["continuous", "finite"])
@pytest.mark.parametrize("name", [name for name in ALL if name != "bayesian"])  # the next test has it
@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_stopped_after_every_event_it_asks_the_same(name: str, space: dict[str, Any], seed: int):
    config = sweep(name, space=space, max_trials=40, max_epochs=20)
    uninterrupted = wander(config, 60, seed)
    assert len(uninterrupted) == distinct(uninterrupted)
    assert len(uninterrupted) >= (6 if space is SIX else 20)
    assert wander(config, 60, seed, stops=range(60)) == uninterrupted


@pytest.mark.filterwarnings("ignore:The optimal value found for dimension")
def test_bayesian_search_stopped_with_trials_in_flight_asks_the_same():
    config = sweep("bayesian", space=PLANE, max_trials=13)  # random until six have a score, then the Gaussian process
    uninterrupted = wander(config, 26, 0, flying_at_most=3)
    assert len(uninterrupted) == 13
    assert wander(config, 26, 0, flying_at_most=3, stops=range(14, 26)) == uninterrupted


@pytest.mark.parametrize("name", ALL)
def test_sixty_four_trials_may_be_in_flight(name: str):
    oracle = make_oracle(sweep(name, space=NINETY_SIX, max_trials=64, max_epochs=81))
    trials = [ask(oracle, number) for number in range(64)]
    assert [trial.status for trial in trials] == ["RUNNING"] * 64
    assert distinct([trial.hyperparameters.values for trial in trials]) == 64
    assert [int(trial.trial_id) for trial in trials] == list(range(64))


@pytest.mark.parametrize(("space", "size"), [(SIX, 6), (NINETY_SIX, 96)], ids=["six", "ninety-six"])
@pytest.mark.parametrize("name", ["random", "grid", "tpe"])
def test_a_small_space_is_walked_to_its_end(name: str, space: dict[str, Any], size: int):
    config = sweep(name, space=space, max_trials=200)
    asked = until_stopped(config)
    assert len(asked) == distinct(asked) == size
    told = [(raw, score(config, raw)) for raw in asked]
    assert replay(make_oracle(config), told, [number for number in range(size) for _ in "at"]) == {}


@pytest.mark.filterwarnings("ignore:The optimal value found for dimension")
def test_bayesian_search_walks_a_small_space_to_its_end():
    space = {"training.epochs": SPACE["training.epochs"]}  # three random trials, the fourth is not where the best was
    asked = until_stopped(sweep("bayesian", space=space, max_trials=50))
    assert len(asked) == distinct(asked) == 4


def test_hyperband_promotes_what_a_small_space_has_and_tries_nothing_twice():
    config = sweep("hyperband", space=SIX, max_epochs=9)
    asked = until_stopped(config)
    assert [raw["tuner/round"] for raw in asked] == [0] * 6 + [1, 1] + [2]
    assert [raw["tuner/epochs"] for raw in asked] == [1] * 6 + [3, 3] + [9]
    best = max(asked[:6], key=lambda raw: score(config, raw))
    assert decode(SIX, asked[-1]) == decode(SIX, best)


@pytest.mark.parametrize("direction", ["min", "max"])
@pytest.mark.parametrize("name", ["tpe", "bayesian"])
def test_an_oracle_that_learns_goes_where_it_is_better(name: str, direction: str):
    config = sweep(name, space=PLANE, max_trials=30, direction=direction)
    oracle, far = make_oracle(config), []
    for number in range(12 if name == "bayesian" else 30):
        trial = ask(oracle, number)
        far.append(abs(trial.hyperparameters.values["head.dropout"] - 0.2))
        tell(oracle, trial, far[-1] if direction == "min" else -far[-1])
    assert sum(far[-4:]) / 4 < 0.6 * sum(far[:6]) / 6


def test_random_search_and_hyperband_are_those_of_kerastuner():
    for name in ("random", "hyperband"):
        config = sweep(name, max_trials=20)
        common: dict[str, Any] = {
            "objective": kt.Objective(config.objective, config.direction),
            "hyperparameters": hyperparameters(SPACE),
            "seed": 1 + seed_of(0, 0),
        }
        theirs = (
            kt.oracles.RandomSearchOracle(max_trials=20, **common)
            if name == "random"
            else kt.oracles.HyperbandOracle(max_epochs=4, factor=3, **common)
        )
        theirs.verbose, theirs.save, theirs._save_trial = 0, lambda: None, lambda trial: None
        asked = []
        while (trial := theirs.create_trial("client")).status == "RUNNING":
            asked.append(dict(trial.hyperparameters.values))
            tell(theirs, trial, score(config, asked[-1]))
        assert asked == until_stopped(config)


def replayed(values: list[tuple[dict[str, Any], float | None]], order: list[int], **changes: Any) -> Callable[[], Any]:
    return lambda: replay(make_oracle(sweep("random", **changes)), values, order)


def test_a_record_of_another_oracle_is_refused():
    own = until_stopped(sweep("random"))
    assert replayed([(own[0], 0.5)], [0, 0])() == {}
    refused = [
        replayed([({"head.l2": 0.5}, 1.0)], [0]),
        replayed([(own[1], 1.0)], [0]),
        replayed([(raw, 1.0) for raw in own], [0, 1, 2, 3, 4, 5], max_trials=5),
        replayed([(own[0], 1.0)], [0, 0, 0]),
    ]
    for record in refused:
        with pytest.raises(UserError, match=r"sweep.fresh=true"):
            record()


def test_a_suggestion_recorded_for_another_space_is_refused():
    narrow = until_stopped(sweep("tpe", space=PLANE, max_trials=14))
    oracle = make_oracle(sweep("tpe", space={**PLANE, "head.normalize": {"type": "bool"}}, max_trials=14))
    with pytest.raises(UserError, match=r"sweep.fresh=true"):
        replay(oracle, [(raw, 0.5) for raw in narrow], [n for n in range(14) for _ in "at"])


def test_trials_in_flight_at_the_stop_come_back_and_can_be_told():
    config = sweep("random")
    oracle = make_oracle(config)
    raws = [dict(ask(oracle, number).hyperparameters.values) for number in range(3)]
    fresh = make_oracle(config)
    flying = replay(fresh, [(raw, 0.5) for raw in raws], [0, 1, 1, 2])
    assert {number: trial.hyperparameters.values for number, trial in flying.items()} == {0: raws[0], 2: raws[2]}
    for trial in flying.values():
        tell(fresh, trial, 0.7)
    assert [trial.score for trial in fresh.trials.values()] == [0.7, 0.5, 0.7]


@pytest.mark.parametrize("name", ["random", "tpe", "bayesian"])
def test_a_thousand_trials_are_replayed_without_sampling(name: str, monkeypatch: pytest.MonkeyPatch):
    config = sweep(name, max_trials=1002)
    random_values = until_stopped(sweep("random", max_trials=1000))
    order = [number for number in range(1000) for _ in ("asked", "told")]
    oracle = make_oracle(config)
    if isinstance(oracle, Guided):  # a suggestion takes a sampler milliseconds, a Gaussian process seconds
        monkeypatch.delattr(type(oracle), "suggest")
    replay(oracle, [(raw, score(config, raw)) for raw in random_values], order)
    assert len(oracle.trials) == 1000


def test_seed_zero_is_a_seed():
    assert until_stopped(sweep("random")) == until_stopped(sweep("random"))


def test_a_raised_budget_goes_on():
    asked = until_stopped(sweep("random", max_trials=2))
    assert len(asked) == 2
    more = make_oracle(sweep("random", max_trials=3))
    replay(more, [(raw, 0.5) for raw in asked], [0, 0, 1, 1])
    assert ask(more, 2).status == "RUNNING"


def test_grid_tries_everything_once_the_last_hyperparameter_fastest():
    asked = until_stopped(sweep("grid", space=SIX, max_trials=None))
    widths, normalize = ([raw[path] for raw in asked] for path in SIX)
    assert widths == ["[]", "[]", "[32]", "[32]", "[64, 32]", "[64, 32]"]
    assert normalize == [False, True] * 3


def test_grid_takes_samples_of_what_is_continuous_and_ints_of_ints():
    space = {"a": SPACE["head.dropout"], "b": {"type": "int", "min": 2, "max": 32, "step": 2, "sampling": "log"}}
    asked = until_stopped(sweep("grid", space=space, max_trials=None))
    assert len(asked) == distinct(asked) == 11 * 5
    assert {type(raw["b"]) for raw in asked} == {int}


def test_every_step_is_tried_the_last_too():
    space = {"head.dropout": {"type": "float", "min": 0.0, "max": 0.5, "step": 0.1}}
    for name in ("random", "grid", "tpe"):
        asked = until_stopped(sweep(name, space=space, max_trials=50))
        assert sorted(raw["head.dropout"] for raw in asked) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.filterwarnings("ignore:The optimal value found for dimension")
def test_no_value_leaves_its_range():
    space = {"training.epochs": {"type": "int", "min": 4, "max": 6, "sampling": "log"}}
    oracle = make_oracle(sweep("bayesian", space=space, max_trials=3))
    for number in range(3):
        trial = ask(oracle, number)
        tell(oracle, trial, trial.hyperparameters.values["training.epochs"])  # the more the better
    hp = oracle.hyperparameters.space[0]
    assert hp.prob_to_value(1.0) == 7 and at(hp, 1.0) == 6
    assert oracle.suggest(3)["training.epochs"] == 6


def test_hyperband_grants_epochs_and_names_the_parent():
    asked = until_stopped(sweep("hyperband"))
    later = [raw for raw in asked if raw["tuner/round"] > 0]
    assert later and all(raw["tuner/epochs"] > raw["tuner/initial_epoch"] > 0 for raw in later)
    assert all(decode(SPACE, asked[int(raw["tuner/trial_id"])]) == decode(SPACE, raw) for raw in later)


@pytest.mark.parametrize("name", ALL)
def test_failed_trials_do_not_stop_an_oracle(name: str):
    oracle = make_oracle(sweep(name, max_trials=10))
    for number, bad in enumerate([None, math.nan, math.inf, None, None]):
        trial = ask(oracle, number)
        tell(oracle, trial, bad)
        assert trial.status == "FAILED"
    assert ask(oracle, 5).status == "RUNNING"


def test_trials_have_seeds_of_their_own():
    seeds = {seed_of(seed, number) for seed in range(20) for number in range(20)}
    assert len(seeds) == 400 and all(0 <= s < 2**31 for s in seeds)


@pytest.mark.parametrize("name", ALL)
def test_every_suggestion_is_of_pythons_own_types(name: str):
    """OmegaConf takes no others; the learning oracles are asked beyond their random start."""
    steps = 30 if name == "bayesian" else 60  # a suggestion of its Gaussian process takes seconds
    asked = wander(sweep(name, max_trials=40), steps, seed=0)
    least = {"bayesian": 12, "hyperband": 9}  # nine are all that Hyperband makes of 4 epochs
    assert len(asked) >= least.get(name, 20)
    assert {type(value) for raw in asked for value in raw.values()} <= {int, float, str, bool}
