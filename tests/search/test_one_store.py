"""One command given with two folders paths.mlruns, as on two machines, in one store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_sweeps import quick, run
from stores import store_in

from fer_experiments import tracking
from fer_experiments.errors import UserError
from fer_experiments.search.state import load_state


def test_what_runs_elsewhere_is_not_taken_up_and_none_of_its_runs_is_closed(tmp_path: Path, paths: list[str]):
    first, second = tmp_path / "first", tmp_path / "second"
    cache = [path for path in paths if path.startswith("paths.cache=")]
    store = store_in(first)
    here = [*cache, f"tracking.uri={store.uri}", "sweep.max_trials=1"]
    config = quick([*here, f"paths.mlruns={first}"])
    state, _ = run(config)
    tags = {"fer.sweep_id": state.id}
    with (
        tracking.start_run(store, "sweep", state.id, tags=tags, resume=state.run_id, system_metrics=False),
        tracking.start_run(store, "trial", "trial 1", tags=tags, parent=state.run_id, system_metrics=False) as trial,
    ):
        other, said = run(quick([*here, f"paths.mlruns={second}"]))
        assert (other.id, len(other.trials)) == (f"{state.id}-2", 1)
        assert f"sweep {other.id}: a new one beside {state.id}, whose run another process or machine has open" in said
        assert "fer.error" not in tracking.find_run(store, trial.id).tags
    again, said = run(quick([*here, f"paths.mlruns={second}", "sweep.max_trials=2"]))
    assert (again.id, len(again.trials)) == (other.id, 2)
    third, _ = run(quick([*here, f"paths.mlruns={tmp_path / 'third'}"]))
    assert third.id == state.id and third.trials[0].run_id == state.trials[0].run_id, "of one that nobody runs"


def test_a_copy_of_its_state_is_refused_while_another_process_runs_it(
    tmp_path: Path, paths: list[str], monkeypatch: pytest.MonkeyPatch
):
    store = store_in(tmp_path / "mlruns")
    options = [path for path in paths if path.startswith("paths.cache=")] + [f"paths.mlruns={tmp_path / 'mlruns'}"]
    state, _ = run(quick([*options, "sweep.max_trials=1"]))
    with tracking.start_run(store, "sweep", state.id, resume=state.run_id, system_metrics=False):
        monkeypatch.setattr("fer_experiments.tracking.stop.this_process", lambda: "another")
        with pytest.raises(UserError, match=f"sweep {state.id}: a process runs it with another paths.mlruns"):
            run(quick([*options, "sweep.max_trials=2"]))
    folder = tmp_path / "mlruns" / "sweeps" / state.id
    assert len((load_state(folder) or replace(state, trials=[])).trials) == 1
