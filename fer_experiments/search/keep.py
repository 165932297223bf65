"""`sweep.keep`: the heads of trials that nobody will ask for are deleted while the sweep runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from fer_experiments import tracking
from fer_experiments.config import SweepConfig
from fer_experiments.config.checks import kept_of
from fer_experiments.errors import first_line
from fer_experiments.search.space import ORACLES
from fer_experiments.search.spread import tied
from fer_experiments.search.state import State
from fer_experiments.terminal import Echo


@dataclass
class Heads:
    """Of a sweep's trials, by the ids of their runs. known: those that the store has. gone: those that are deleted.
    promoted: those that stay."""

    known: set[str] = field(default_factory=set)

    gone: set[str] = field(default_factory=set)
    promoted: set[str] = field(default_factory=set)


def look(store: tracking.Store, sweep_id: str) -> Heads:
    """What is known of the heads of a sweep's trials, from its store."""
    trials = tracking.find_runs(store, {"fer.sweep_id": sweep_id, "fer.kind": "trial"}, deleted=True)
    gone = {run.run_id for run in trials if tracking.HEAD in run.tags}
    return Heads({run.run_id for run in trials}, gone, promoted(store, sweep_id))


def promoted(store: tracking.Store, sweep_id: str) -> set[str]:
    """The runs that were promoted of a sweep's trials, and others."""
    found: set[str] = set()
    for run in tracking.find_runs(store, {"fer.kind": "promotion"}, deleted=True):
        if run.tags.get("fer.sweep_id", "") not in ("", sweep_id):  # "": of a run alone, which may be a trial's
            continue
        refits = tracking.artifact_json(store, run.run_id, "refits.json")
        found |= {row["run_id"] for row in refits or []}
    return found


def to_drop(heads: Heads, state: State, keep: str) -> list[str]:
    """The runs whose heads `keep` does not keep, and are there still: of trials that ended, and were not promoted."""
    most = kept_of(keep)
    if most is None:
        return []
    wanted = state.ranked()[:most] + (tied(state) if most and state.prefer != "best" else [])
    kept = {trial.run_id for trial in wanted} | heads.gone | heads.promoted
    ended = (trial for trial in state.ended if trial.status in ("finished", "pruned"))
    return [trial.run_id for trial in ended if trial.run_id and trial.run_id not in kept]


def drop(heads: Heads | None, store: tracking.Store, state: State, sweep: SweepConfig, echo: Echo) -> Heads | None:
    """Deletes what sweep.keep does not keep; what cannot be deleted is said in a line. Takes and returns what it knows.

    Of an oracle that goes on with heads (Hyperband) all stay, as they are needed to go on.
    """
    if sweep.keep == "all" or ORACLES[sweep.oracle].grants:
        return heads
    heads = heads or look(store, state.id)
    if to_drop(heads, state, sweep.keep):
        if tracking.find_runs(store, {"fer.kind": "promotion"}, "RUNNING"):
            return heads  # it may take any; the next trial that ends asks again
        heads.promoted = promoted(store, state.id)
    for run_id in to_drop(heads, state, sweep.keep):
        heads.gone.add(run_id)
        try:
            tracking.drop_head(store, run_id, f"sweep.keep={sweep.keep}")
        except Exception as error:
            if tracking.is_lost(error):
                raise
            echo(f"sweep.keep={sweep.keep}: the head of run {run_id} stays ({first_line(error, named=True)})")
    return heads
