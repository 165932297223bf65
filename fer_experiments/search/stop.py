"""`fer sweeps stop`: a running sweep is asked to end, through its run, from wherever that can be written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from fer_experiments import termination, tracking
from fer_experiments.config import Config, close
from fer_experiments.errors import UserError

if TYPE_CHECKING:  # who asks a sweep to stop waits for no Keras
    from fer_experiments.search.bookkeeping import Sweep

POLL_S = 2.0  # between two looks at a sweep's run
# How a sweep is asked to stop, and what its record says then.
REASONS = {"finish": "fer sweeps stop", "now": "fer sweeps stop now=true"}
MEANT = {"finish": "its trials in flight are finished", "now": "its trials in flight are killed"}


def stop(config: Config, sweep_id: str | None, *, now: bool = False) -> str:
    """Asks a running sweep to stop; returns what comes of it, in a line.

    Raises:
        UserError: no id, or none of a sweep that runs; a store that cannot be written.
    """
    store = tracking.connect_existing(config, write=True)
    with tracking.said_in_a_line(store):
        running = tracking.running_sweeps(store)
        if sweep_id not in running:
            others = f"; running: {', '.join(sorted(running))}" if running else "; none does"
            which = f"{sweep_id}: no sweep of this id runs" if sweep_id else "stop: say the id of a sweep that runs"
            raise UserError(which + (close(sweep_id or "", running) or others))
        how = "now" if now else "finish"
        tracking.request_stop(store, running[sweep_id], how)
    later = "the command that began it, without sweep.fresh, goes on later"
    return f"sweep {sweep_id}: asked to stop; {MEANT[how]}, and {later}"


@contextmanager
def heard(sweep: Sweep, parent: tracking.Run) -> Iterator[None]:
    """In the block a thread looks for requests: `sweep.request` says why its loop must end, or SIGTERM ends it now."""
    over, acting = threading.Event(), threading.Lock()
    here = threading.current_thread()
    threading.Thread(target=_listen, args=(sweep, parent, over, acting, here), name="stop", daemon=True).start()
    try:
        yield
    finally:
        try:
            with acting:
                over.set()
        finally:
            over.set()  # a signal may have come first


def _listen(
    sweep: Sweep, parent: tracking.Run, over: threading.Event, acting: threading.Lock, sweeping: threading.Thread
) -> None:
    process = tracking.this_process()
    while not over.wait(POLL_S):
        how = None
        with suppress(BaseException):  # a store that is lost is noticed by the sweep itself
            how = tracking.take_stop(parent.store, parent.id, process)
        with acting:  # a sweep that has ended meanwhile is not killed in its last lines
            if how not in REASONS or over.is_set():
                continue
            sweep.request = REASONS[how]
            sweep.echo(f"sweep {sweep.state.id}: asked to stop; {MEANT[how]}")
        if how == "now":
            sweep.state.reason = REASONS[how]
            with suppress(BaseException):
                parent.set_tags({"fer.ended_by": REASONS[how]})
            with acting:
                if not over.is_set():
                    termination.interrupt(sweeping)
