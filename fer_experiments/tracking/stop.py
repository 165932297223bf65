"""Requests to stop a sweep: a tag of its run, which is where the sweep and whoever wants it stopped both get at."""

from __future__ import annotations

from fer_experiments.tracking.processes import is_alive, this_process
from fer_experiments.tracking.queries import FoundRun, find_everywhere, find_run
from fer_experiments.tracking.store import Store, client_of

STOP = "fer.stop"  # how, and the process that is meant: what is asked of one does not stop the next


def running_sweeps(store: Store) -> dict[str, FoundRun]:
    """The runs of the sweeps that run, by the sweeps' ids, those on machines that cannot be seen from here too."""
    found = find_everywhere(store, "tags.`fer.kind` = 'sweep' and attributes.status = 'RUNNING'")
    running = [run for run in found if is_alive(run.tags.get("fer.process", "")) is not False]
    return {run.tags["fer.sweep_id"]: run for run in running if "fer.sweep_id" in run.tags}


def runs_elsewhere(run: FoundRun) -> bool:
    """Whether another process than this one has a run open, as far as can be seen from here."""
    process = run.tags.get("fer.process", "")
    return process != this_process() and is_alive(process) is True


def request_stop(store: Store, run: FoundRun, how: str) -> None:
    """Asks the process that runs a sweep to stop; how: a word of the sweep's."""
    client_of(store).set_tag(run.run_id, STOP, f"{how} {run.tags['fer.process']}")


def take_stop(store: Store, run_id: str, process: str) -> str | None:
    """How the process (`this_process`) that has this run open was asked to stop since it was last looked, or None."""
    run = find_run(store, run_id)
    how, _, meant = (run.tags.get(STOP, "") if run else "").partition(" ")
    if meant != process:
        return None
    client_of(store).set_tag(run_id, STOP, "")
    return how
