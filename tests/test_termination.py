from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from stores import store_in

from fer_experiments import termination, tracking
from fer_experiments.config.compose import compose
from fer_experiments.search import sweep
from fer_experiments.search.sweep import run_sweep
from fer_experiments.tracking import find_runs
from fer_experiments.tracking.lifecycle import start_run
from fer_experiments.tracking.store import client_of


@pytest.fixture(autouse=True)
def pythons_own_handlers() -> Iterator[None]:
    """Whatever other tests of this process have left."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def swallowed(number: int) -> None:
    try:
        os.kill(os.getpid(), number)
        for _ in range(1000):  # Python runs a handler between two instructions
            pass
    except:  # noqa: E722  the kind that some libraries have
        pass
    else:
        raise AssertionError("no exception")


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_that_a_library_swallows_is_raised_again(number: int, kind: type[BaseException]):
    before = signal.getsignal(number)
    with pytest.raises(kind) as raised, termination.signals_as_exceptions():
        termination.check()
        swallowed(number)
        termination.check()
    assert kind is not SystemExit or raised.value.code == 143
    assert signal.getsignal(number) is before
    termination.check()  # nothing of it is left after the block


def test_a_thread_that_no_signal_reaches_is_ended_as_by_sigterm():
    begun, ended = threading.Event(), list[BaseException | None]()

    def loop() -> None:
        guard = time.monotonic() + 60
        try:
            while time.monotonic() < guard:
                begun.set()
            ended.append(None)
        except SystemExit as error:
            ended.append(error)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    assert begun.wait(60)
    termination.interrupt(thread)
    thread.join(120)
    assert [type(error) for error in ended] == [SystemExit]


def test_the_main_thread_is_ended_by_its_own_signal():
    with pytest.raises(SystemExit, match="143"), termination.signals_as_exceptions():
        termination.interrupt(threading.main_thread())
        for _ in range(1000):  # Python runs a handler between two instructions
            pass


def test_a_signal_in_a_held_block_is_raised_at_its_end():
    done = []
    with pytest.raises(SystemExit) as raised, termination.signals_as_exceptions():
        with termination.held():
            with termination.held():
                signal.raise_signal(signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        done.append("after")
    assert raised.value.code == 143 and done == ["inner", "outer"]


def test_closing_after_a_signal_is_not_interrupted_again():
    with pytest.raises(SystemExit), termination.signals_as_exceptions():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            with termination.held():
                closed = True
    assert closed


def test_a_signal_stops_no_call_to_a_sqlite_store_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = compose(["data=demo", f"paths.mlruns={tmp_path}"])
    store = tracking.connect(config)
    done = []

    def interrupted(self, run_id, key, value):
        signal.raise_signal(signal.SIGTERM)
        done.append(key)

    monkeypatch.setattr("mlflow.MlflowClient.set_tag", interrupted)
    with pytest.raises(SystemExit), termination.signals_as_exceptions():
        client_of(store).set_tag("run", "key", "value")
    assert done == ["key"]


def status_of(store: tracking.Store) -> list[str]:
    return sorted(run.status for run in find_runs(store))


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("server", [False, True])
def test_a_signal_while_a_run_is_opened_leaves_none_that_runs_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool, server: bool
):
    store = tracking.connect(compose(["data=demo", f"paths.mlruns={tmp_path}"]))
    if server:  # whose client a signal interrupts anywhere
        monkeypatch.setattr("fer_experiments.tracking.store.sqlite.database_of", lambda uri: None)
    with start_run(store, "probe", "first", system_metrics=False) as first:
        pass
    opening = "update_run" if resumed else "create_run"
    real = getattr(MlflowClient, opening)

    def interrupted(self, *args, **options):
        found = real(self, *args, **options)
        signal.raise_signal(signal.SIGTERM)
        return found

    monkeypatch.setattr(MlflowClient, opening, interrupted)
    resume = first.id if resumed else None
    with pytest.raises(SystemExit), start_run(store, "probe", "second", resume=resume, system_metrics=False):
        raise AssertionError("it was begun")
    monkeypatch.setattr(MlflowClient, opening, real)
    assert status_of(store) == (["KILLED"] if resumed else ["FINISHED", "KILLED"])


def test_what_fails_while_a_run_is_opened_again_closes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = tracking.connect(compose(["data=demo", f"paths.mlruns={tmp_path}"]))
    with start_run(store, "probe", "first", system_metrics=False) as first:
        pass

    def failing(self, run_id, key):
        raise RuntimeError("a server's")

    monkeypatch.setattr(MlflowClient, "delete_tag", failing)
    client_of(store).set_tag(first.id, "fer.error", "of before")
    with pytest.raises(RuntimeError), start_run(store, "probe", "", resume=first.id, system_metrics=False):
        raise AssertionError("it was begun")
    assert status_of(store) == ["FAILED"]


def test_an_impatient_user_closes_the_run_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = tracking.connect(compose(["data=demo", f"paths.mlruns={tmp_path}"]))
    finish = SystemMetricsMonitor.finish

    def interrupted(self):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        finish(self)

    monkeypatch.setattr(SystemMetricsMonitor, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt), start_run(store, "probe", "first"):
        signal.raise_signal(signal.SIGINT)
    assert status_of(store) == ["KILLED"]


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_another_signal_ends_what_may_take_minutes(
    number: signal.Signals, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(termination, "PATIENCE_S", 3600.0)
    done = []
    with pytest.raises(kind), termination.signals_as_exceptions(), termination.held(firmly=False):
        signal.raise_signal(number)
        done.append("first")
        with termination.held():
            signal.raise_signal(number)
            done.append("held")
        signal.raise_signal(number)
        done.append("never")
    assert done == ["first", "held"]


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_server_that_does_not_answer_holds_a_signal_for_seconds(
    number: signal.Signals, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(termination, "PATIENCE_S", 0.2)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(kind), termination.signals_as_exceptions(), termination.held(firmly=False):
        signal.raise_signal(number)
        ours.recv(1)  # for ever


def test_ignored_and_foreign_handlers_stay(monkeypatch: pytest.MonkeyPatch):
    code = "import signal; from fer_experiments.termination import signals_as_exceptions as s\n"
    code += "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, print)\n"
    code += "with s(), s():\n  assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN\n"
    code += "  assert signal.getsignal(signal.SIGTERM) is print\n"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_sweep_stops_though_its_signal_was_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ask = sweep.ask

    def ask_swallowing(oracle, number):
        if number == 1:
            swallowed(signal.SIGTERM)
        return ask(oracle, number)

    monkeypatch.setattr(sweep, "ask", ask_swallowing)
    options = ["sweep=quick", "data.limit=60", "data.demo_size=600", "training.epochs=2"]
    options += ["tracking.system_metrics=false"]
    options += [f"paths.mlruns={tmp_path / 'm'}", f"paths.cache={tmp_path / 'c'}"]
    with pytest.raises(SystemExit) as raised:
        run_sweep(compose(options), lambda line: None)
    assert raised.value.code == 143
    runs = find_runs(store_in(tmp_path / "m"))
    assert sorted(run.status for run in runs) == ["FINISHED", "KILLED", "KILLED"]  # two trials and the parent
