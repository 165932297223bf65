"""The short forms of the benchmarks that kill sweeps and promotions with SIGKILL at random instants."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(("oracle", "compute"), [("tpe", "inline"), ("random", "processes")])
def test_a_sweep_killed_at_random_instants_loses_nothing(oracle: str, compute: str):
    command = [sys.executable, "benchmarks/kill_sweep.py", "--oracle", oracle, "--compute", compute]
    done = subprocess.run([*command, "--trials", "6", "--kills", "4"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert re.search("4 kills in .*: nothing lost, no trial twice, no run left RUNNING, the same", done.stdout), (
        done.stdout
    )


def test_a_promotion_killed_at_random_instants_leaves_the_old_champion_or_the_new_one():
    command = [sys.executable, "benchmarks/kill_promote.py", "--kills", "2"]  # at any instant, and at the alias
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert re.search(r"^2 kills .* loadable and right each time$", done.stdout, re.MULTILINE), done.stdout
