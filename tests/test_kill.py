"""The short forms of the benchmarks that kill sweeps and promotions with SIGKILL at random instants."""

from __future__ import annotations

from pathlib import Path

import kill_promote
import kill_sweep
import pytest


@pytest.mark.parametrize(("oracle", "compute", "repeats"), [("tpe", "inline", 2), ("random", "processes", 1)])
def test_a_sweep_killed_at_random_instants_loses_nothing(oracle: str, compute: str, repeats: int, tmp_path: Path):
    overrides = [f"sweep.oracle={oracle}", f"compute={compute}", f"sweep.repeats={repeats}"]
    assert kill_sweep.harness(tmp_path, overrides, trials=4, kills=3, seed=0).kills == 3


def test_a_promotion_killed_at_random_instants_leaves_the_old_champion_or_the_new_one(tmp_path: Path):
    struck, _ = kill_promote.harness(tmp_path, kills=2, seed=0)  # at the alias, and at any instant
    assert struck.total() == 2
