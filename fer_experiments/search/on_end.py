"""`sweep.on_end`: a command that is told how a sweep ended, and cannot hurt it."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fer_experiments.ambient import open_environment
from fer_experiments.config.checks import words_of
from fer_experiments.errors import UserError, first_line
from fer_experiments.search.bookkeeping import Sweep
from fer_experiments.terminal import shown

MOST_S = 30.0  # that a command may take: after SIGTERM, Slurm kills what goes on


@contextmanager
def on_end(sweep: Sweep) -> Iterator[None]:
    """Tells the sweep's command, if it has one, how the block ended: finished, stopped, or failed and why."""
    with on_failure(sweep):
        yield
    _tell(sweep, "finished" if sweep.state.status == "finished" else "stopped", sweep.state.reason)


@contextmanager
def on_failure(sweep: Sweep) -> Iterator[None]:
    """The same where it comes to no end: what is made ready before its trials may take hours."""
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, (KeyboardInterrupt, SystemExit))
        asked = sweep.request or "a signal"  # and not why it ended before
        why = asked if stopped else first_line(error, named=not isinstance(error, UserError))
        _tell(sweep, "stopped" if stopped else "failed", why)
        raise


def message(sweep: Sweep, status: str, reason: str | None) -> dict[str, Any]:
    """What the command gets, JSON-able. best: None before a trial has finished. trials: how many, by how they ended."""
    state, best, settings = sweep.state, sweep.state.best(), sweep.sweep
    files = {name: sweep.folder / name for name in ("leaderboard.csv", "best.yaml")}
    return {
        "id": state.id,
        "status": status,
        "reason": reason,
        "objective": settings.objective,
        "direction": settings.direction,
        "best": best
        and {
            **{key: getattr(best, key) for key in ("number", "score", "values", "run_id")},
            "metrics": {name: value if math.isfinite(value) else None for name, value in best.metrics.items()},
        },
        "trials": {**Counter(trial.status for trial in state.ended), "in_flight": len(state.in_flight)},
        "hours": round(state.seconds / 3600, 4),
        "run_id": state.run_id,
        "store": str(sweep.store),
        "leaderboard": str(files["leaderboard.csv"]) if files["leaderboard.csv"].exists() else None,
        "best_config": str(files["best.yaml"]) if files["best.yaml"].exists() else None,
    }


def _tell(sweep: Sweep, status: str, reason: str | None) -> None:
    if not sweep.sweep.on_end:
        return
    log = sweep.folder / "on_end.log"
    try:
        said = _run(words_of(sweep.sweep.on_end), json.dumps(message(sweep, status, reason), allow_nan=False), log)
    except Exception as error:
        said = first_line(error)
    if said:
        sweep.echo(f"sweep.on_end: {said}" + (f"; what it wrote is in {shown(log)}" if log.exists() else ""))


def _run(words: list[str], told: str, log: Path) -> str | None:
    """What went wrong with a command, which and whose children end with this call; None if nothing did."""
    with _given() as given, _written(log) as out:  # no pipes: nobody waits for their other end
        given.write(told.encode())
        given.seek(0)
        process = subprocess.Popen(
            words, stdin=given, stdout=out, stderr=out, env=open_environment(), start_new_session=True
        )
        try:
            code = process.wait(MOST_S)
            return f"ended with exit status {code}" if code else None
        except subprocess.TimeoutExpired:
            return f"killed after {MOST_S:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _given() -> IO[bytes]:
    """A file for what the command is told: in memory where that can be, for a disk may be full."""
    return os.fdopen(os.memfd_create("told"), "w+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()


def _written(log: Path) -> IO[bytes]:
    """A file for what the command writes, nowhere if that cannot be."""
    try:
        return log.open("wb")
    except OSError:
        return Path(os.devnull).open("wb")
