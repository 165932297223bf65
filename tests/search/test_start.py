"""What a sweep begins with: given configs, the best of a recorded sweep, and what another sweep knows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_sweeps import folder_of, quick, run, runs_of

from fer_experiments.config import Config, SweepConfig
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.report.report import write_report
from fer_experiments.search.oracle import ask, make_oracle, replay, tell
from fer_experiments.search.start import _enqueue, check_sweep, unused
from fer_experiments.search.state import State, load_state
from fer_experiments.search.sweep import run_sweep
from fer_experiments.search.tpe import TpeOracle

GIVEN = "sweep.enqueue=[{head.l2:1e-3,head.dense_widths:[32]},{training.learning_rate:0.01}]"


@pytest.fixture(scope="module")
def enqueued(paths: list[str]) -> tuple[Config, State, list[str]]:
    """Two given configs and a third trial, by TPE."""
    config = quick(paths, GIVEN, "sweep.oracle=tpe", "sweep.max_trials=3", "training.deterministic=true")
    return (config, *run(config))


def test_given_configs_run_first_and_what_is_not_given_is_drawn(enqueued: tuple[Config, State, list[str]]):
    config, state, _ = enqueued
    first, second, third = (trial.values for trial in state.trials)
    assert (first["head.l2"], first["head.dense_widths"], second["training.learning_rate"]) == (1e-3, [32], 0.01)
    assert 1e-5 <= first["training.learning_rate"] <= 1e-2 and len({v["head.l2"] for v in (first, second, third)}) == 3
    without = replace(config, sweep=replace(config.sweep, enqueue=None))
    assert third == run(replace(without, sweep=replace(without.sweep, max_trials=1)))[0].trials[0].values


def test_what_was_enqueued_is_said(enqueued: tuple[Config, State, list[str]]):
    config, state, said = enqueued
    assert "  the first 2 trials were enqueued" in said[-1]
    (parent,) = runs_of(config, sweep_id=state.id, kind="sweep")
    assert parent.tags["fer.enqueued"] == "2" and '"head.l2": 0.001' in parent.params["sweep.enqueue"]
    page = write_report(config, state.id).read_text()
    assert "The first 2 trials were enqueued." in page and "run first" in page


def test_the_same_command_goes_on_after_a_stop_anywhere(enqueued: tuple[Config, State, list[str]], tmp_path: Path):
    config, state, _ = enqueued
    elsewhere = replace(config, paths=replace(config.paths, mlruns=str(tmp_path / "mlruns")))

    def stopping(line: str) -> None:
        if line.startswith("trial "):
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run_sweep(elsewhere, stopping)
    resumed, said = run(elsewhere)
    assert resumed.id == state.id and not any("a new one" in line for line in said)
    assert [(t.raw, t.score) for t in resumed.trials] == [(t.raw, t.score) for t in state.trials]


def test_the_best_of_a_recorded_sweep_run_first_though_it_is_gone_later(
    enqueued: tuple[Config, State, list[str]], paths: list[str]
):
    config, state, _ = enqueued
    best = [trial.values for trial in state.ranked()]
    named = quick(paths, f"sweep.enqueue={state.id}:2", "sweep.max_trials=1")
    begun, said = run(named)
    numbers = ", ".join(str(trial.number) for trial in state.ranked()[:2])
    assert f"sweep {begun.id}: runs trials {numbers} of {state.id} first" in said
    folder = folder_of(config, state)
    folder.rename(folder.with_name("elsewhere"))
    more, _ = run(replace(named, sweep=replace(named.sweep, max_trials=2)))
    folder.with_name("elsewhere").rename(folder)
    assert more.id == begun.id and [trial.values for trial in more.trials] == best[:2]


def test_a_config_that_had_several_rounds_is_enqueued_once(enqueued: tuple[Config, State, list[str]]):
    _, state, _ = enqueued
    again = replace(state.ranked()[0], number=len(state.trials))  # as Hyperband's rounds are
    begun = State("next-01234567", "next", state.identity)
    _enqueue(begun, replace(state, trials=[*state.trials, again]), 2)
    assert begun.queue == [trial.raw for trial in state.ranked()[:2]]


def test_trials_that_do_not_fit_the_space_are_passed_over(
    enqueued: tuple[Config, State, list[str]], paths: list[str], tmp_path: Path
):
    _, state, _ = enqueued
    space = "{head.l2: {type: float, min: 9.0e-4, max: 1.1e-3}, head.dense_widths: {type: choice, values: [[32]]}"
    space += ", training.learning_rate: {type: float, min: 1.0e-5, max: 1.0e-2}}"
    file = tmp_path / "narrow.yaml"
    own = "defaults:\n  - override /data: demo\n  - override /backbone: pocket\n  - override /head: pooled\n"
    file.write_text(f"{own}sweep:\n  enqueue: {state.id}\n  max_trials: 1\n  space: {space}\n")
    begun, said = run(compose([f"sweep={file}", "data.limit=60", "data.demo_size=600", "training.epochs=1", *paths]))
    (fits,) = [t for t in state.trials if t.values["head.l2"] == 1e-3]
    assert begun.trials[0].values == fits.values
    assert any("do not fit its space)" in line for line in said) and begun.queue == [begun.trials[0].raw]


def test_what_a_sweep_began_with_is_checked_when_its_state_is_read(enqueued: tuple[Config, State, list[str]]):
    config, state, _ = enqueued
    file = folder_of(config, state) / "state.json"
    kept = file.read_bytes()
    assert load_state(file.parent).queue == [trial.raw for trial in state.trials[:2]]  # type: ignore[union-attr]
    known = {"raw": state.queue[0], "score": 0.5}
    good, bad = {**json.loads(kept), "warm": [known]}, [{"queue": [{}]}, {"queue": 3}, {"warm": [{**known, "x": 1}]}]
    file.write_text(json.dumps(good))
    assert load_state(file.parent).warm == [known]  # type: ignore[union-attr]
    bad += [{"queue": [{**state.queue[0], "head.l2": 7}]}, {"warm": [{"raw": {}, "score": 0.5}]}, {"warm": [3]}]
    for record in [*bad, {"warm": [{**known, "score": float("nan")}]}]:
        file.write_text(json.dumps({**good, **record}))
        with pytest.raises(UserError, match=r"state\.json: not a sweep's state"):
            load_state(file.parent)
    file.write_bytes(kept)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sweep.enqueue=[{head.l2:7}]"], "sweep.enqueue: head.l2=7: outside the space, {'type': 'float', 'min'"),
        (["sweep.enqueue=[{head.dense_widths:[3]}]"], "sweep.enqueue: head.dense_widths=[3]: outside the space"),
        (["sweep.enqueue=[{head.l3:7}]"], "head.l3=7: no key of sweep.space; did you mean head.l2"),
        (["sweep.enqueue=[{head.dropout:0.5}]"], "head.dropout=0.5: no key of sweep.space"),
        (["sweep.enqueue=[]"], "say a list of configs, each {<key of the space>: <its value>}, or a recorded sweep"),
        (["sweep.enqueue=[{}]"], "say a list of configs"),
        (["sweep.enqueue=[3]"], "say a list of configs"),
        (["sweep.enqueue={head.l2:1e-3}"], "say a list of configs"),
        (["sweep.enqueue=quick:x"], "say <id or name of a sweep>:<how many"),
        (["sweep.enqueue=nowhere"], "sweep.enqueue: no sweeps in "),
        ([GIVEN, "sweep.oracle=grid"], "sweep.enqueue: grid tries every value anyway; leave it out, or say"),
        ([GIVEN, "sweep.oracle=hyperband"], "sweep.enqueue: hyperband grants its first trials few epochs"),
        (["sweep.warm_start=x"], "sweep.warm_start=x: the random oracle learns from no trial; say sweep.oracle=tpe or"),
        (["sweep.warm_start=x", "sweep.oracle=tpe"], "sweep.warm_start: no sweeps in "),
    ],
)
def test_what_a_sweep_cannot_begin_with_is_refused_in_a_line(overrides: list[str], message: str, tmp_path: Path):
    with pytest.raises(UserError) as caught:
        check_sweep(compose(["sweep=quick", f"paths.mlruns={tmp_path}", *overrides]))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_key_is_enqueued_with_what_its_condition_wants(tmp_path: Path):
    filters: dict[str, Any] = {"type": "choice", "values": [[8], [4]], "when": {"head": "conv"}}
    space = {"head": {"type": "choice", "values": ["conv", "linear"]}, "head.filters": filters}
    config = compose(["sweep=quick", f"paths.mlruns={tmp_path}"])
    with_queue = lambda *queue: replace(config, sweep=replace(config.sweep, space=space, enqueue=list(queue)))  # noqa: E731
    check_sweep(with_queue({"head": "conv", "head.filters": [4]}))
    for given in ({"head.filters": [4]}, {"head": "linear", "head.filters": [4]}):
        with pytest.raises(UserError, match=r"head.filters=\[4\]: only with head=conv, which is to be given with it"):
            check_sweep(with_queue(given))


def test_what_another_sweep_knows_is_told_though_it_is_gone_later(
    enqueued: tuple[Config, State, list[str]], paths: list[str], monkeypatch: pytest.MonkeyPatch
):
    config, state, _ = enqueued
    monkeypatch.setattr(TpeOracle, "initial", 4)
    overrides = [f"sweep.warm_start={state.id}", "sweep.oracle=tpe", "head.dropout=0.3"]
    warm = quick(paths, *overrides, "sweep.max_trials=2", "training.deterministic=true")
    begun, said = run(warm)
    assert f"sweep {begun.id}: its oracle is told 3 of 3 trials of {state.id}, which differs in head.dropout" in said
    assert begun.warm == [{"raw": trial.raw, "score": trial.score} for trial in state.trials]
    words = f"ts oracle was told 3 trials of {state.id} at its beginning"
    assert words in said[-1] and words in write_report(warm, begun.id).read_text()
    (parent,) = runs_of(warm, sweep_id=begun.id, kind="sweep")
    assert (parent.tags["fer.warm_start"], parent.tags["fer.told"]) == (state.id, "3")
    folder = folder_of(config, state)
    folder.rename(folder.with_name("elsewhere"))
    more, _ = run(replace(warm, sweep=replace(warm.sweep, max_trials=3)))
    folder.with_name("elsewhere").rename(folder)
    assert more.id == begun.id and more.trials[:2] == begun.trials and more.warm == begun.warm
    cold, _ = run(quick(paths, "sweep.oracle=tpe", "head.dropout=0.3", "sweep.max_trials=2"))
    assert more.trials[0].values == cold.trials[0].values, "drawn, as four trials are not known yet"
    assert more.trials[1].values != cold.trials[1].values, "suggested"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["sweep.objective=final/val_loss", "sweep.direction=min"],
            "has another objective, final/val_accuracy and",
        ),
        (["data.limit=50"], r"has another dataset, \w+ and not \w+: they differ in data.limit; its scores say nothing"),
        (["sweep.space={head.l2:{type:float,min:1.0,max:2.0}}"], r"none of the 3 finished trials of .* fits the space"),
    ],
)
def test_a_sweep_that_knows_nothing_of_this_one_is_refused(
    enqueued: tuple[Config, State, list[str]], paths: list[str], overrides: list[str], message: str
):
    _, state, _ = enqueued
    with pytest.raises(UserError, match=f"^sweep.warm_start={state.id}: .*{message}"):
        run(quick(paths, f"sweep.warm_start={state.id}", "sweep.oracle=tpe", *overrides))


@pytest.mark.filterwarnings("ignore:The optimal value found for dimension")
@pytest.mark.parametrize("oracle", ["bayesian", "tpe"])
def test_an_oracle_begins_with_what_it_was_told(oracle: str):
    """No random start, and after each trial a replay asks the same; one trial is always in flight."""
    x: dict[str, Any] = {"type": "float", "min": 0.0, "max": 1.0}
    config = SweepConfig(name="t", oracle=oracle, max_trials=None, space={"head.dropout": x})
    warm = [{"raw": {"head.dropout": place / 12}, "score": -abs(place / 12 - 0.25)} for place in range(13)]
    asking, trials, order = make_oracle(config, (), warm), [], [0]
    flying = ask(asking, 0)
    for number in range(1, 5):
        trials.append((dict(flying.hyperparameters.values), -abs(flying.hyperparameters.values["head.dropout"] - 0.25)))
        again = make_oracle(config, (), warm)
        replay(again, trials, order)
        new = [ask(each, number) for each in (asking, again)]
        assert new[0].hyperparameters.values == new[1].hyperparameters.values
        tell(asking, flying, trials[-1][1])
        flying, order = new[0], [*order, number, number - 1]
    far = [abs(raw["head.dropout"] - 0.25) for raw, _ in trials]
    assert sum(far) / 4 < 0.15, "random ones are 0.31 away in the mean"


@pytest.mark.parametrize("oracle", ["random", "tpe"])
def test_a_long_queue_is_asked_whole_and_replayed(oracle: str):
    """Twelve in the queue, where TPE learns from ten; one trial is always in flight."""
    x: dict[str, Any] = {"type": "float", "min": 0.0, "max": 1.0}
    config = SweepConfig(name="t", oracle=oracle, max_trials=None, space={"head.dropout": x})
    queue = [{"head.dropout": place / 12} for place in range(12)]
    asking, trials, order = make_oracle(config, queue), [], [0]
    flying = ask(asking, 0)
    for number in range(1, 18):
        trials.append((dict(flying.hyperparameters.values), number / 20))
        again = make_oracle(config, queue)
        (back,) = replay(again, trials, order).values()
        new = [ask(oracle, number).hyperparameters.values for oracle in (asking, again)]
        assert new[0] == new[1] and back.hyperparameters.values == trials[-1][0]
        tell(asking, flying, trials[-1][1])
        flying = asking.trials[f"{number:04d}"]
        order += [number, number - 1]
    assert [raw for raw, _ in trials[:12]] == queue
    assert not any(raw in queue for raw, _ in trials[12:])


def test_none_that_fits_is_refused(enqueued: tuple[Config, State, list[str]], paths: list[str]):
    _, state, _ = enqueued
    with pytest.raises(UserError, match=rf"sweep.enqueue: none of the 3 finished trials of {state.id} is in this"):
        run(quick(paths, f"sweep.enqueue={state.id}", "sweep.space={head.dropout:{type:float,min:0.6,max:0.7}}"))


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ("sweep.max_epochs=5 sweep.factor=4 sweep.min_epochs=9", ["max_epochs=5", "factor=4", "min_epochs=9"]),
        ("sweep.oracle=hyperband sweep.max_epochs=5 sweep.factor=4", []),
        ("sweep.pruner=asha sweep.min_epochs=1 sweep.factor=2", []),
        ("sweep.max_epochs=20", []),
    ],
)
def test_settings_that_its_oracle_makes_nothing_of_are_said(words: str, keys: list[str]):
    config = compose(["sweep=quick", *words.split()])
    assert config.sweep is not None
    assert [line.partition(":")[0] for line in unused(config.sweep)] == [f"sweep.{key}" for key in keys]
