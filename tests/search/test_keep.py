"""Whose heads stay: by sweep.keep, and what a sweep needs to go on or a promotion was made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import dead_process, start
from small_sweeps import quick, run, runs_of
from stores import config_in

from fer_experiments import tracking
from fer_experiments.config import Config, flatten, is_place, mlruns_dir, to_dict
from fer_experiments.config.checks import kept_of
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.search import keep
from fer_experiments.search.state import State
from fer_experiments.search.trials import Trial
from fer_experiments.tracking.store import client_of


def heads(config: Config) -> set[str]:
    """The runs whose heads are on disk."""
    return {
        file.parents[3].name
        for file in mlruns_dir(config).glob("artifacts/fer/demo/*/artifacts/model/data/model.keras")
    }


def test_the_heads_of_the_best_stay_while_a_sweep_runs_and_after_it_went_on(tmp_path: Path, paths: list[str]):
    own = [f"paths.mlruns={tmp_path}/mlruns", paths[1]]
    first, _ = run(quick(own, "sweep.max_trials=2"))
    config = quick(own, "sweep.max_trials=3", "sweep.keep=best:1")
    assert heads(config) == {t.run_id for t in first.trials}
    state, _ = run(config)
    best = state.best()
    assert (state.id, len(state.trials)) == (first.id, 3)
    assert best is not None and heads(config) == {best.run_id}
    gone = {t.run_id for t in runs_of(config, kind="trial") if tracking.HEAD in t.tags}
    assert gone == {t.run_id for t in state.trials} - {best.run_id}
    kept = mlruns_dir(config) / "artifacts" / "fer" / "demo" / (best.run_id or "") / "artifacts"
    assert not (kept / "environment").exists() and not (kept / "data" / "faces.png").exists(), "on the sweep's run"
    environment = kept.parents[1] / (state.run_id or "") / "artifacts" / "environment"
    assert (environment / "versions.json").is_file()
    assert (environment / "after_2_trials" / "versions.json").is_file(), "it went on in another one, for all it knows"
    assert (kept / "data" / "cleaning.json").is_file()


def ended(number: int, score: float, status: str = "finished") -> Trial:
    return Trial(number=number, status=status, score=score, run_id=f"{number:032}")


def test_what_was_promoted_stays_whatever_is_kept(tmp_path: Path):
    state = State("s-01234567", "s", {"sweep.direction": "max"}, order=[0, 0, 1, 1, 2, 2, 3])
    state.trials = [ended(0, 0.9), ended(1, 0.8), ended(2, 0.95, "pruned"), Trial(number=3)]
    known = keep.Heads(promoted={f"{1:032}"})
    assert keep.to_drop(known, state, "none") == [f"{0:032}", f"{2:032}"]
    assert keep.to_drop(known, state, "best:1") == [f"{2:032}"]
    assert keep.to_drop(known, state, "all") == []
    assert keep.to_drop(keep.Heads(gone={f"{2:032}"}), state, "best:1") == [f"{1:032}"]
    state.trials[0].scores, state.trials[1].scores = [0.8, 1.0], [0.7, 0.9]
    state.trials[0].parameters, state.trials[1].parameters = 20, 10
    state.prefer = "simple"
    assert keep.to_drop(keep.Heads(), state, "best:1") == [f"{2:032}"], "what is taken cannot be told from the best"
    store = tracking.connect(config_in(tmp_path / "mlruns"))
    with start(store, kind="promotion", tags={"fer.sweep_id": ""}) as promotion:  # of a run alone
        promotion.log_json([{"run_id": "a"}, {"run_id": "b"}], "refits.json")
    with start(store, kind="promotion", tags={"fer.sweep_id": "t-01234567"}) as promotion:
        promotion.log_json([{"run_id": "c"}], "refits.json")
    assert keep.look(store, state.id).promoted == {"a", "b"}


@pytest.fixture
def two(tmp_path: Path) -> tuple[tracking.Store, State]:
    """A sweep of two trials with heads."""
    store = tracking.connect(config_in(tmp_path / "mlruns"))
    state = State("s-01234567", "s", {"sweep.direction": "max"})
    for number in range(2):
        with start(store, kind="trial", tags={"fer.sweep_id": state.id}) as run:
            run.log_text("a head", "model/data/model.keras")
        state.trials.append(ended(number, 0.9))
        state.trials[-1].run_id = run.id
        state.order += [number, number]
    return store, state


def dropped(heads: keep.Heads | None, two: tuple[tracking.Store, State]) -> keep.Heads:
    sweep = compose(["sweep=quick", "sweep.keep=none"]).sweep
    assert sweep is not None
    found = keep.drop(heads, *two, sweep, print)
    assert found is not None
    return found


def test_what_is_promoted_while_the_sweep_runs_stays(two: tuple[tracking.Store, State]):
    store, state = two
    known = keep.look(store, state.id)
    with start(store, kind="promotion", tags={"fer.sweep_id": "of-01234567"}):  # of another sweep
        with start(store, kind="promotion", tags={"fer.sweep_id": state.id}) as promotion:
            assert dropped(known, two) is known and not known.gone, "it may take any"
            assert not keep.look(store, state.id).certain, "nor may `fer clean`"
            promotion.log_json([{"run_id": state.trials[0].run_id}], "refits.json")
        assert dropped(known, two).gone == {state.trials[1].run_id}
    assert dropped(None, two).gone == {state.trials[1].run_id}


def test_a_promotion_that_died_holds_no_head(two: tuple[tracking.Store, State]):
    store, state = two
    with start(store, kind="promotion", tags={"fer.sweep_id": state.id}) as promotion:
        client_of(store).set_tag(promotion.id, "fer.process", dead_process())
        assert dropped(None, two).gone == {trial.run_id for trial in state.trials}


def test_where_what_was_promoted_cannot_be_read_nothing_is_deleted(
    two: tuple[tracking.Store, State], capsys: pytest.CaptureFixture[str]
):
    store, state = two
    with start(store, kind="promotion", tags={"fer.sweep_id": state.id}) as promotion:
        promotion.log_text('[{"run_id": "', "refits.json")
    assert not dropped(None, two).gone and "refits.json cannot be read" in capsys.readouterr().err
    promotion.log_json([{"run_id": state.trials[0].run_id}], "refits.json")
    assert dropped(None, two).gone == {state.trials[1].run_id}


def test_an_oracle_that_goes_on_with_heads_keeps_all():
    state = State("s-01234567", "s", {"sweep.direction": "max"}, order=[0, 0], trials=[ended(0, 0.9)])
    sweep = compose(["sweep=quick", "sweep.oracle=hyperband", "sweep.keep=none"]).sweep
    assert sweep is not None and keep.drop(None, None, state, sweep, print) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["best", "best:0", "best:-1", "some", "5"])
def test_keep_is_all_none_or_so_many(wrong: str):
    with pytest.raises(UserError, match=f"^sweep.keep={wrong}: must be all, none, or best:<how many>"):
        compose(["sweep=quick", f"sweep.keep={wrong}"])
    assert (kept_of("all"), kept_of("none"), kept_of("best:5")) == (None, 0, 5)


def test_it_is_no_part_of_what_a_sweep_is():
    assert is_place("sweep.keep") and "sweep.keep" in flatten(to_dict(compose(["sweep=quick"])))
