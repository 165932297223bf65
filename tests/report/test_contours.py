from __future__ import annotations

import numpy as np
import pytest
from test_report_page import made_up, trial

from fer_experiments.report.contours import REACH, contours, smoothed
from fer_experiments.report.scales import Scale


def line(at: list[float]) -> Scale:
    return Scale("a", at, 0.0, 1.0, {})


def test_the_mean_follows_the_trials_nearby_and_is_unknown_where_none_is():
    random = np.random.default_rng(0)
    left, up = random.uniform(0, 0.5, 80), random.uniform(0, 1, 80)
    x, y, z = smoothed(line(left.tolist()), line(up.tolist()), (left * 2).tolist())
    assert z.shape == (len(y), len(x)) and np.isnan(z[:, -1]).all() and not np.isnan(z[len(y) // 2, 5])
    row = z[len(y) // 2]
    assert (np.diff(row[~np.isnan(row)]) > 0).all() and np.nanmin(z) >= 0 and np.nanmax(z) <= 1
    width = len(left) ** (-1 / 6) / np.sqrt(12)
    known = ~np.isnan(z).all(axis=0)
    assert x[known].max() <= left.max() + REACH * width


def test_values_of_a_choice_are_no_neighbours():
    choice = Scale("w", [0.0, 0.0, 2.0], -0.5, 2.5, {0.0: "a", 1.0: "b", 2.0: "c"}, discrete=True)
    x, y, z = smoothed(choice, Scale("n", [0.0, 1.0, 0.0], -0.5, 1.5, {}, discrete=True), [1.0, 2.0, 3.0])
    assert x.tolist() == [0, 1, 2] and y.tolist() == [0, 1]
    np.testing.assert_array_equal(z, [[1, np.nan, 3], [2, np.nan, np.nan]])


@pytest.mark.parametrize(
    ("paths", "kind"), [(["head.l2", "head.dropout"], "contour"), (["head.normalize", "head.l2"], "heatmap")]
)
def test_each_trial_that_has_both_is_a_point(paths: list[str], kind: str):
    record = made_up([trial(n, ["finished", "failed", "pruned", "repeated"][n % 4]) for n in range(12)])
    del record.state.trials[0].values[paths[1]]
    drawn = contours(record, paths)
    assert drawn is not None and drawn.data[0].type == kind
    assert len(drawn.data[1].x) == len(drawn.data[1].y) == 5 and "trial 2" in drawn.data[1].hovertext[0]
    assert contours(made_up([trial(0, "failed")]), paths) is None
