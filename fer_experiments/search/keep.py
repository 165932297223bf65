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
    promoted: those that stay. read: the promotions that said so. certain: whether all of these have said it."""

    known: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    promoted: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    certain: bool = True

    def hear(self, store: tracking.Store, sweep_id: str) -> None:
        """Takes in what was promoted; one that is under way, or whose record cannot be read, may have taken any."""
        self.certain = True
        for run in tracking.find_runs(store, {"fer.kind": "promotion"}, deleted=True):
            if run.run_id in self.read or run.tags.get("fer.sweep_id", "") not in ("", sweep_id):
                continue  # "": of a run alone, which may be a trial's
            if run.status == "RUNNING" and tracking.is_alive(run.tags.get("fer.process", "")) is not False:
                self.certain = False
                continue
            refits = tracking.artifact_json(store, run.run_id, "refits.json", [{"run_id": ""}])
            if refits is None and run.status == "FINISHED":
                self.certain = False
                continue
            self.promoted |= {row["run_id"] for row in refits or []}
            self.read.add(run.run_id)


def look(store: tracking.Store, sweep_id: str) -> Heads:
    """What is known of the heads of a sweep's trials, from its store."""
    trials = tracking.find_runs(store, {"fer.sweep_id": sweep_id, "fer.kind": "trial"}, deleted=True)
    heads = Heads({run.run_id for run in trials}, {run.run_id for run in trials if tracking.HEAD in run.tags})
    heads.hear(store, sweep_id)
    return heads


def to_drop(heads: Heads, state: State, keep: str) -> list[str]:
    """The runs whose heads `keep` does not keep, and are there still: of trials that ended, and were not promoted.

    Empty where it is not certain which were.
    """
    most = kept_of(keep)
    if most is None or not heads.certain:
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
    if heads is None:
        heads = look(store, state.id)
    elif not heads.certain or to_drop(heads, state, sweep.keep):
        heads.hear(store, state.id)  # of promotions since then
    for run_id in to_drop(heads, state, sweep.keep):
        heads.gone.add(run_id)
        try:
            tracking.drop_head(store, run_id, f"sweep.keep={sweep.keep}")
        except Exception as error:
            if tracking.is_lost(error):
                raise
            echo(f"sweep.keep={sweep.keep}: the head of run {run_id} stays ({first_line(error, named=True)})")
    return heads
