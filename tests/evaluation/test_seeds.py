import numpy as np
import pytest
from scipy import stats

from fer_experiments.evaluation.seeds import Spread, holm, spread, welch


def test_a_spread_is_that_of_its_scores_and_its_interval_students():
    scores = [0.91, 0.93, 0.90, 0.92]
    found = spread(scores)
    assert (found.count, found.mean, found.std) == (4, pytest.approx(0.915), pytest.approx(np.std(scores, ddof=1)))
    low, high = stats.t.interval(0.95, 3, loc=np.mean(scores), scale=stats.sem(scores))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    with pytest.raises(ValueError, match="takes two"):
        spread([0.9])


def test_the_true_mean_lies_in_95_of_100_intervals():
    random = np.random.default_rng(0)
    found = [spread(list(random.normal(0.9, 0.01, 5))) for _ in range(1000)]
    assert 930 <= sum(each.low <= 0.9 <= each.high for each in found) <= 970


def test_welchs_test_is_that_of_the_scores_themselves():
    first, second = [0.91, 0.93, 0.90], [0.94, 0.95, 0.93, 0.96]
    wanted = stats.ttest_ind(first, second, equal_var=False).pvalue
    assert welch(spread(first), spread(second)) == pytest.approx(wanted)
    same, other = Spread(3, 0.9, 0, 0.9, 0.9), Spread(3, 0.8, 0, 0.8, 0.8)
    assert (welch(same, same), welch(same, other)) == (1, 0)


def test_holms_p_values_are_those_of_the_definition():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.5]) == [1, 1] and holm([]) == [] and holm([0.02]) == [0.02]
