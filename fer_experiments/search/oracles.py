"""KerasTuner's oracles, made fit for trials in flight, finite spaces and replays; asked by `search`, as is `tpe`."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import keras_tuner as kt
import numpy as np
from keras_tuner.engine import hyperparameters as kinds
from keras_tuner.engine.trial import Trial

from fer_experiments.evaluation.metrics import cost
from fer_experiments.search.identity import seed_of

Values = dict[str, Any]


def count(hp: Any) -> int | None:
    """How many values a hyperparameter has; None when it is continuous."""
    if isinstance(hp, kinds.Choice | kinds.Boolean):
        return len(hp.values)
    if hp.step is not None:
        return int(hp._get_n_values())
    return hp.max_value - hp.min_value + 1 if isinstance(hp, kinds.Int) else None


def level(hp: Any, index: int) -> Any:
    """The value at this place among `count(hp)`, False before True."""
    if isinstance(hp, kinds.Int) and hp.step is None:
        return hp.min_value + index
    size = count(hp)
    assert size is not None
    return hp.prob_to_value((index + 0.5) / size)


def at(hp: Any, probability: float) -> Any:
    """The value at this place from 0 to 1 of a continuous hyperparameter's range."""
    # KerasTuner: Int.prob_to_value(1.0) with log sampling is max_value + 1.
    return max(hp.min_value, min(hp.max_value, hp.prob_to_value(probability)))


def combination(grid: Mapping[str, Sequence[Any]], number: int) -> Values:
    """One of the combinations of a grid by its number, the last name changing fastest."""
    values = {}
    for name, levels in reversed(list(grid.items())):
        number, place = divmod(number, len(levels))
        values[name] = levels[place]
    return {name: values[name] for name in grid}


class Exhaustive(kt.Oracle):
    """Random values that go on to the last unseen ones of a finite space; KerasTuner gives up after 20 collisions.

    queue: values of the first trials, in the place of random ones; they take nothing from the random sequence.
    """

    queue: Sequence[Values] = ()

    def _random_values(self) -> Values | None:
        if len(self.trials) < len(self.queue):
            return dict(self.queue[len(self.trials)])
        values = super()._random_values()
        return self._unseen() if values is None else values

    def _unseen(self) -> Values | None:
        """The first values that no trial has had, from a random place on: at most as many steps as trials."""
        space = self.hyperparameters.space
        grid = {hp.name: range(size) for hp in space if (size := count(hp)) is not None}
        if len(grid) < len(space):
            return None
        size = math.prod(len(places) for places in grid.values())
        start = random.Random(self._seed_state).randrange(size)
        for number in range(start, start + size):
            places = combination(grid, number % size)
            values = {hp.name: level(hp, places[hp.name]) for hp in space}
            if not self._duplicate(values):
                return values
        return None


class RandomOracle(Exhaustive, kt.oracles.RandomSearchOracle):
    """KerasTuner's random search."""


class GridOracle(kt.Oracle):
    """Every combination once, the first values first, ten values (and the least) of a continuous hyperparameter.

    KerasTuner's own has at most two trials in flight (1.4.8: a trial's successor is known when it has ended).
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The combination with this trial's number."""
        space = self.hyperparameters.space
        few = {hp.name: self._some(hp) for hp in space if self._is_wide(hp)}
        grid = {hp.name: few.get(hp.name) or range(count(hp) or 0) for hp in space}
        if len(self.trials) == math.prod(len(places) for places in grid.values()):
            return {"status": "STOPPED"}
        chosen = combination(grid, len(self.trials))
        values = {hp.name: chosen[hp.name] if hp.name in few else level(hp, chosen[hp.name]) for hp in space}
        return {"status": "RUNNING", "values": values}

    def _is_wide(self, hp: Any) -> bool:
        return not isinstance(hp, kinds.Choice | kinds.Boolean) and hp.step is None

    def _some(self, hp: Any) -> list[Any]:
        return sorted({hp.min_value, *(at(hp, 0.1 * place + 0.05) for place in range(10))})


class HyperbandOracle(Exhaustive, kt.oracles.HyperbandOracle):
    """KerasTuner's Hyperband; when a finite space is exhausted, a bracket goes on with the trials it has."""

    def __init__(self, **settings: Any) -> None:
        self._started: dict[int, int] = {}  # bracket -> trials of its first round, where the space had no more
        super().__init__(**settings)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next trial of a bracket, IDLE while a round waits for trials in flight."""
        response = super().populate_space(trial_id)
        for bracket in self._brackets:
            if any(trial["id"] == trial_id for trials in bracket["rounds"] for trial in trials):
                # KerasTuner names the bracket that was opened last.
                response["values"]["tuner/bracket"] = bracket["bracket_num"]
        return response

    def _random_trial(self, trial_id: str, bracket: dict[str, Any]) -> dict[str, Any]:
        response = super()._random_trial(trial_id, bracket)
        if response["status"] == "RUNNING":
            return response
        self._started[bracket["bracket_num"]] = len(bracket["rounds"][0])
        return self.populate_space(trial_id)

    def _get_size(self, bracket_num: int, round_num: int) -> int:
        size = super()._get_size(bracket_num, round_num)
        if bracket_num not in self._started:
            return int(size)
        return min(int(size), math.ceil(self._started[bracket_num] / self.factor**round_num))


class Guided(Exhaustive):
    """An oracle that learns: random values until `initial` trials have a score, then suggestions, never one twice.

    warm: trials of another sweep, with their scores. They were not tried in this one, which may ask for the same.
    """

    initial: int
    given: Values | None = None  # what a replayed trial had, so that nothing need be computed

    def __init__(self, **settings: Any) -> None:
        self.warm: list[Trial] = []
        super().__init__(**settings)

    def hear(self, raw: Values, score: float) -> None:
        """Takes in a trial of another sweep; before anything is asked."""
        hyperparameters = self.hyperparameters.copy()
        hyperparameters.values = dict(raw)
        self.warm.append(Trial(hyperparameters, trial_id=f"warm {len(self.warm)}", status="COMPLETED"))
        self.warm[-1].score = score

    def suggest(self, number: int) -> Values:
        """What the trials so far make look best for the trial with this number; drawn from a seed of its own."""
        raise NotImplementedError

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next suggestion; STOPPED when a finite space is exhausted."""
        given, self.given = self.given, None
        values: Values | None
        known = len(self.warm) + sum(trial.status == "COMPLETED" for trial in self.trials.values())
        if known < self.initial or len(self.trials) < len(self.queue):
            values = self._random_values()
        elif given is not None and given.keys() == {hp.name for hp in self.hyperparameters.space}:
            values = given
        else:
            values = self.suggest(len(self.trials))
            if self._duplicate(values):
                # Not a place in the sequence of random values: a replay does not come by here.
                self._seed_state = seed_of(self.seed, len(self.trials))
                values = self._random_values()
        return {"status": "RUNNING" if values else "STOPPED", "values": values}


class BayesianOracle(Guided, kt.oracles.BayesianOptimizationOracle):
    """KerasTuner's Gaussian process. Trials in flight count as a pessimistic guess of their scores."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.initial = max(3, 3 * len(self.hyperparameters.space))  # KerasTuner's default
        self.num_initial_points = -1  # KerasTuner would count without `warm`, and takes 0 for its default

    def suggest(self, number: int) -> Values:
        """The least lower confidence bound."""
        self._random_state = np.random.RandomState(seed_of(self.seed, number))
        values: Values = kt.oracles.BayesianOptimizationOracle.populate_space(self, "")["values"]
        # NumPy's floats and integers, which no config takes, as Python's.
        values = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
        continuous = [hp for hp in self.hyperparameters.space if getattr(hp, "step", 1) is None]
        return values | {hp.name: max(hp.min_value, min(hp.max_value, values[hp.name])) for hp in continuous}

    def _vectorize_trials(self) -> tuple[np.ndarray, np.ndarray]:
        # KerasTuner guesses from the fit before this one, which a replayed oracle has not made.
        told = [*self.warm, *(trial for trial in self.trials.values() if trial.status == "COMPLETED")]
        x, y = self._points(told), np.array([cost(trial.score, self.objective.direction) for trial in told])
        flying = [trial for trial in self.trials.values() if trial.status == "RUNNING"]
        if flying:
            self.gpr.fit(x, y)
            mean, deviation = self.gpr.predict(self._points(flying), return_std=True)
            x, y = np.concatenate([x, self._points(flying)]), np.concatenate([y, mean + deviation])
        return x, y

    def _points(self, trials: Sequence[Trial]) -> np.ndarray:
        """Trials in the unit cube, float64 [trials, hyperparameters]."""
        space = self.hyperparameters.space
        return np.array([[hp.value_to_prob(trial.hyperparameters.values[hp.name]) for hp in space] for trial in trials])
