"""Config paths, and values put at them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_experiments.compose import compose
from fer_experiments.config import flatten, from_dict, to_dict, with_values
from fer_experiments.errors import UserError

BASE = compose(["sweep=quick"])


def test_a_config_survives_the_way_to_plain_containers_and_back():
    assert from_dict(to_dict(BASE)) == BASE


@given(l2=st.floats(1e-9, 1.0), widths=st.lists(st.integers(1, 4096), max_size=4), rate=st.floats(1e-6, 1.0))
def test_values_land_at_their_paths_and_nowhere_else(l2: float, widths: list[int], rate: float):
    changed = with_values(BASE, {"head.l2": l2, "head.dense_widths": widths, "training.learning_rate": rate})
    before, after = flatten(to_dict(BASE)), flatten(to_dict(changed))
    assert (after["head.l2"], after["head.dense_widths"], after["training.learning_rate"]) == (l2, widths, rate)
    differing = {key for key in before if before[key] != after[key]}
    assert differing <= {"head.l2", "head.dense_widths", "training.learning_rate"}


def test_an_unknown_path_names_the_close_ones():
    with pytest.raises(UserError, match=r"head.l3: no such config path; did you mean head.l2"):
        with_values(BASE, {"head.l3": 1.0})


def test_a_wrong_type_is_refused():
    with pytest.raises(UserError, match=r"head.l2"):
        with_values(BASE, {"head.l2": "much"})


def test_groups_of_emotions_stay_whole_when_flattened():
    assert flatten(to_dict(BASE))["data.classes"] == {"negative": ["angry", "fear", "sad"], "positive": ["happy"]}
