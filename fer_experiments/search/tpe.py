"""The tree-structured Parzen estimator as a KerasTuner oracle, around Optuna's sampler.

Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization"; several in flight by Optuna's constant liar.
"""

from __future__ import annotations

import math
from typing import Any

import keras_tuner as kt
import optuna
from keras_tuner.engine import hyperparameters as kinds
from keras_tuner.engine.trial import Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from fer_experiments.search.identity import seed_of
from fer_experiments.search.oracles import Guided, Values, at, count, level

optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study

STARTUP = 10  # random trials before the estimator; Optuna's default
TRIES = 5  # draws of the estimator before an unseen random one, when it draws what has been tried


class TpeOracle(Guided):
    """Optuna's TPE on KerasTuner's hyperparameters, each by itself.

    Multivariate TPE settles too early: on a smooth function of six hyperparameters (three continuous, two choices, one
    bool; two pairs that interact) its best of 100 trials came to 0.897 ± 0.007 over 20 seeds, this to 0.899 ± 0.001.
    """

    initial = STARTUP

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.study = optuna.create_study(direction="maximize" if self.objective.direction == "max" else "minimize")
        # The sampler is asked on behalf of a trial, and overlooks it: this one, which never ends and has no values.
        self.study.ask()
        self.asking = self.study.get_trials(deepcopy=False)[0]
        self.distributions = {hp.name: distribution(hp) for hp in self.hyperparameters.space}

    def hear(self, raw: Values, score: float) -> None:
        """Takes in a trial of another sweep, which the sampler knows as an ended one."""
        super().hear(raw, score)
        self._add(raw, state=optuna.trial.TrialState.COMPLETE, value=score)

    def suggest(self, number: int) -> Values:
        """The likeliest of 24 draws from the good trials' density, against the density of the others."""
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=0, multivariate=False, constant_liar=True, seed=seed_of(self.seed, number)
        )
        for _ in range(TRIES):
            values = {}
            for hp in self.hyperparameters.space:
                searched = self.distributions[hp.name]
                only = searched.single()
                drawn = 0 if only else sampler.sample_independent(self.study, self.asking, hp.name, searched)
                values[hp.name] = value(hp, drawn)
            if not self._duplicate(values):
                break
        return values

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next suggestion, known to the sampler as in flight."""
        response = super().populate_space(trial_id)
        if response["status"] == "RUNNING":
            self._add(response["values"], state=optuna.trial.TrialState.RUNNING)
        return response

    def _add(self, values: Values, **how: Any) -> None:
        # Places made from the values and not those drawn: a replay, which has only values, makes the same.
        places = {hp.name: place(hp, values[hp.name]) for hp in self.hyperparameters.space}
        self.study.add_trial(optuna.trial.create_trial(params=places, distributions=self.distributions, **how))

    @kt.synchronized
    def end_trial(self, trial: Trial) -> None:
        """Tells the score; the sampler overlooks failed trials."""
        super().end_trial(trial)
        number = 1 + len(self.warm) + int(trial.trial_id)
        if trial.status == "COMPLETED":
            self.study.tell(number, trial.score)
        else:
            self.study.tell(number, state=optuna.trial.TrialState.FAIL)


def distribution(hp: Any) -> BaseDistribution:
    """What the sampler sees: indices of values, or places from 0 to 1 (thus log and reverse_log) where continuous."""
    size = count(hp)
    if isinstance(hp, kinds.Choice | kinds.Boolean):
        assert size is not None
        return CategoricalDistribution(tuple(range(size)))
    if hp.step is not None:
        assert size is not None
        return IntDistribution(0, size - 1)
    return FloatDistribution(0.0, 1.0)


def value(hp: Any, place: float) -> Any:
    """The hyperparameter's value at a place in its `distribution`."""
    return at(hp, place) if getattr(hp, "step", 1) is None else level(hp, int(place))


def place(hp: Any, value: Any) -> float:
    """The inverse of `value`."""
    if isinstance(hp, kinds.Choice):
        return int(hp.values.index(value))
    if isinstance(hp, kinds.Boolean):
        return int(value)
    if hp.step is None:
        return min(1.0, max(0.0, hp.value_to_prob(value)))
    if hp.sampling == "linear":
        return round((value - hp.min_value) / hp.step)
    above = value if hp.sampling == "log" else hp.max_value + hp.min_value - value
    return round(math.log(above / hp.min_value, hp.step))
