import numpy as np
import pandas as pd
import pytest

from fer_experiments.search.importance import importances


def trials(n=40, seed=0):
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "training.learning_rate": 10 ** random.uniform(-5, -2, n),
            "head.dense_widths": [[[128, 64], [256, 128]][i] for i in random.integers(2, size=n)],
            "head.name": random.choice(["conv", "paper"], n),
            "head.dropout": random.uniform(0, 0.5, n),
        }
    )
    rate = np.log10(frame["training.learning_rate"])
    frame["objective"] = 0.9 - 0.02 * (rate + 3.5) ** 2 + 0.02 * (frame["head.name"] == "conv")
    return frame


def test_what_moves_the_objective_comes_first():
    table = importances(trials(), "objective")
    assert list(table["name"][:2]) == ["training.learning_rate", "head.name"]
    assert table["importance"].sum() == pytest.approx(1)
    assert table["importance"].is_monotonic_decreasing
    assert table["importance"][2:].max() < 0.05


def test_failed_trials_are_left_out():
    frame = trials()
    failed = frame.assign(objective=np.nan)
    together = pd.concat([frame, failed], ignore_index=True)
    pd.testing.assert_frame_equal(importances(together, "objective"), importances(frame, "objective"))


def test_fewer_than_four_finished_trials_say_nothing():
    frame = trials(10)
    frame.loc[3:, "objective"] = np.nan
    assert importances(frame, "objective").empty
    assert list(importances(frame, "objective")) == ["name", "importance", "std"]


def test_an_objective_that_never_moves_has_no_important_hyperparameter():
    assert (importances(trials().assign(objective=0.5), "objective")["importance"] == 0).all()


def test_a_hyperparameter_may_be_none_or_mixed():
    frame = trials(8).assign(limit=[None, 1, "all", 2.5, None, True, [1], {}])
    assert set(importances(frame, "objective")["name"]) == set(frame) - {"objective"}
