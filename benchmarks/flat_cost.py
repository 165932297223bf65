"""Whether the thousandth trial costs what the tenth did: the time of a trial outside its fit, in a long sweep.

    python benchmarks/flat_cost.py [--oracle random] [--trials 1000] [--beside 100] [--ui] [--keep folder]
        [--json out.json]

Trials of a linear head on demo features in one process. Outside the fit are the oracle, the state, MLflow's SQLite
store and the artifacts. Compares trials 10 to 110 with the last hundred, by the median of wall-clock time and of CPU
time (of this process). For machines that do other things meanwhile, --beside then runs that many more trials and, at
the same time, as many of a new sweep, and compares these two. --ui starts MLflow's UI on the store and times its run
table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from fer_experiments.environment import hardware

SMALL = ["data.limit=60", "data.demo_size=600", "training.epochs=1", "tracking.system_metrics=false"]
SWEEP = """
defaults:
  - override /data: demo
  - override /backbone: pocket
  - override /head: linear
sweep:
  name: flat
  space:
    head.l2: {type: float, min: 1.0e-6, max: 1.0e-1, sampling: log}
    training.batch_size: {type: int, min: 16, max: 64}
    training.learning_rate: {type: float, min: 1.0e-5, max: 1.0e-2, sampling: log}
"""
PORT = 5077


def measure(folder: Path, oracle: str, trials: int) -> list[tuple[float, float]]:
    """Seconds outside its fit of each trial but the first, by the wall clock and by this process' CPU time."""
    from fer_experiments.config.compose import compose
    from fer_experiments.experiment import repeats
    from fer_experiments.search.sweep import run_sweep

    ends: list[tuple[float, float]] = []
    fits: list[tuple[float, float]] = []
    fit_head = repeats.fit_head

    def timed(*args: Any, **kwargs: Any) -> Any:
        before = _now()
        try:
            return fit_head(*args, **kwargs)
        finally:
            fits.append(_since(before))

    def echo(line: str) -> None:
        if line.startswith("trial "):
            ends.append(_now())
            if len(ends) % 100 == 0:
                print(f"{len(ends)} trials, {ends[-1][0] - ends[0][0]:.0f} s, {_memory()} MB", flush=True)

    repeats.fit_head = timed
    places = [f"paths.mlruns={folder / 'mlruns'}", f"paths.cache={folder / 'cache'}"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "flat.yaml").write_text(SWEEP)
    run_sweep(
        compose(
            [f"sweep={folder / 'flat.yaml'}", *SMALL, f"sweep.oracle={oracle}", f"sweep.max_trials={trials}", *places]
        ),
        echo,
    )
    whole = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(ends)]
    return [(w - fw, c - fc) for (w, c), (fw, fc) in zip(whole, fits[1:], strict=True)]


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(before: tuple[float, float]) -> tuple[float, float]:
    now = _now()
    return now[0] - before[0], now[1] - before[1]


def _memory() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss / 1e6)


def time_ui(folder: Path) -> str:
    """Starts MLflow's UI on the store; how long it takes, and how long the first page of its run table."""
    uri = f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}"
    command = [str(Path(sys.executable).parent / "mlflow"), "ui", "--backend-store-uri", uri, "--port", str(PORT)]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as ui:
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=2).close()
                    break
                except OSError:
                    time.sleep(0.2)
            up = time.perf_counter() - started
            times = [_first_page() for _ in range(5)]
        finally:
            os.killpg(ui.pid, 15)
    return f"MLflow's UI is up after {up:.1f} s; the first 100 runs of the table in {statistics.median(times):.2f} s"


def _first_page() -> float:
    """Seconds for what the run table asks the server: the 100 newest runs with their params, metrics and tags."""
    body = b'{"experiment_ids": ["1"], "max_results": 100, "order_by": ["attributes.start_time DESC"]}'
    address = f"http://127.0.0.1:{PORT}/ajax-api/2.0/mlflow/runs/search"
    started = time.perf_counter()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert answer.read().count(b'"run_id"') >= 100
    return time.perf_counter() - started


def more(folder: str, oracle: str, trials: int) -> list[float]:
    """Wall-clock seconds outside their fit of the trials that the sweep in a folder still lacks, but the first ten."""
    return [wall for wall, _ in measure(Path(folder), oracle, trials)[9:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracle", default="random")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--beside", type=int, default=0, help="trials of each of the two sweeps at the end")
    parser.add_argument("--ui", action="store_true")
    parser.add_argument("--keep", type=Path, help="a folder for the store; an old one goes on")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory(prefix="flat-cost-") as temporary:
        folder = given.keep or Path(temporary) / "long"
        columns = measure(folder, given.oracle, given.trials)
        if given.json:
            walls = [round(wall, 4) for wall, _ in columns]
            found = {"hardware": {k: v for k, v in hardware().items() if k != "host"}, "oracle": given.oracle}
            given.json.write_text(json.dumps(found | {"outside_s": walls}) + "\n")
        print(f"{given.oracle}: median time outside the fit {statistics.median(w for w, _ in columns):.3f} s")
        if len(columns) >= 200:
            for name, values in zip(("wall", "CPU"), zip(*columns, strict=True), strict=True):
                first, last = statistics.median(values[9:109]), statistics.median(values[-100:])
                print(
                    f"{given.oracle}: {name} time outside the fit {first:.3f} s at trials 10 to 110, {last:.3f} s at "
                    f"the last 100: {last / first:.2f} times"
                )
        if given.beside:
            with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
                short = pool.submit(more, f"{temporary}/short", given.oracle, given.beside)
                long = pool.submit(more, str(folder), given.oracle, given.trials + given.beside)
                new, old = statistics.median(short.result()), statistics.median(long.result())
            print(
                f"{given.oracle}: side by side {new:.3f} s in a new sweep, {old:.3f} s after {given.trials} trials: "
                f"{old / new:.2f} times"
            )
        if given.ui:
            print(time_ui(folder))


if __name__ == "__main__":
    main()
