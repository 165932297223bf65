"""`fer clean`: what takes room and nothing needs: heads that no sweep keeps, deleted runs, features unused for long."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fer_experiments import tracking
from fer_experiments.config import Config, cache_dir
from fer_experiments.config.checks import kept_of
from fer_experiments.errors import UserError
from fer_experiments.files import is_held
from fer_experiments.search import keep
from fer_experiments.search.budget import NOTHING_MORE
from fer_experiments.search.recorded import readable_sweeps
from fer_experiments.search.space import ORACLES
from fer_experiments.search.state import State, is_locked
from fer_experiments.search.watch import recorded_settings
from fer_experiments.terminal import Echo, counted, say, size, table
from fer_experiments.tracking import Store, models

REMADE = ("features", "finetune", "pretrain")  # folders of the cache, of what can be made again


@dataclass(frozen=True)
class Item:
    """Something that can be removed: what it is, how many bytes it takes, and what tells it from others."""

    what: str
    bytes: int
    remove: Callable[[], object]
    key: tuple[str, ...]


def clean(config: Config, kept: str | None = None, days: str = "30", *, yes: bool = False, echo: Echo = say) -> str:
    """Lists what can be removed, and removes it after a yes; returns what came of it.

    kept: what sweeps keep, in the place of what each was told. days: without use, after which features can go.

    Raises:
        UserError: a store that cannot be written, or arguments that say nothing.
    """
    if kept is not None:
        kept_of(kept, "keep")
    if not days.isdecimal():
        raise UserError(f"days={days}: must be a whole number")
    store = tracking.connect_existing(config, write=True)
    with tracking.said_in_a_line(store):
        items = _items(config, store, kept, int(days))
        if not items:
            return "nothing to remove"
        echo(table([["what", "size"], *([item.what, size(item.bytes)] for item in items)], right=1))
        total, listed = size(sum(item.bytes for item in items)), {item.key for item in items}
        if not yes:
            if not _agreed(total):
                return f"nothing was removed; fer clean --yes removes {total}"
            items = [item for item in _items(config, store, kept, int(days)) if item.key in listed]  # a yes takes time
        for item in items:
            item.remove()
    stay = len(listed) - len(items)
    changed = f"; {stay} of the list stayed, which changed meanwhile" if stay else ""
    return f"removed {size(sum(item.bytes for item in items))}{changed}"


def _items(config: Config, store: Store, kept: str | None, days: int) -> list[Item]:
    """What can be removed now."""
    states = list(readable_sweeps(store.mlruns / "sweeps"))
    running = {state.id for state, folder in states if is_locked(folder)} | tracking.running_sweeps(store).keys()
    items = [*_heads(store, [s for s, _ in states if s.id not in running], kept)]
    items += _deleted(store, [state for state, _ in states])
    return items + ([] if running else [*_features(cache_dir(config), days)])


def _agreed(total: str) -> bool:
    """Whether whoever sits at the terminal says yes."""
    if not sys.stdin.isatty():
        return False
    say(f"remove {total}? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _heads(store: Store, states: list[State], kept: str | None) -> Iterator[Item]:
    """Of each sweep that does not run, the heads that it does not keep; a promotion's stay, and what a resume needs."""
    for state in states:
        own = store.of(state.identity["data.task"])
        # Failed trials may be run again (sweep.retry_failed), from the heads of others.
        over = (state.reason or "").endswith(NOTHING_MORE) and not any(trial.failed for trial in state.ended)
        if (ORACLES[state.identity["sweep.oracle"]].grants and not over) or not state.run_id:
            continue
        saying = kept or recorded_settings(state, own).keep
        heads = keep.look(own, state.id)
        dropped = [run_id for run_id in keep.to_drop(heads, state, saying) if run_id in heads.known]
        sizes = {run_id: tracking.artifact_size(own, run_id, "model") for run_id in dropped}
        ids, count = [run_id for run_id in dropped if sizes[run_id]], sum(sizes.values())
        if ids:
            what = f"{counted(len(ids), 'head')} of sweep {state.id} (keep={saying})"
            key = ("heads", state.id, *ids)
            yield Item(what, count, lambda own=own, ids=ids, why=saying: _drop(own, ids, why), key)  # type: ignore[misc]


def _drop(store: Store, run_ids: list[str], saying: str) -> None:
    for run_id in run_ids:
        tracking.drop_head(store, run_id, f"fer clean, keep={saying}")


def _deleted(store: Store, states: list[State]) -> Iterator[Item]:
    """Runs deleted in the UI; those stay that a registered version was made in, a leaderboard names, or that opened a
    test split."""
    deleted = {run.run_id: run for run in tracking.deleted_runs(store)}
    named = {t.run_id for state in states if state.run_id not in deleted for t in state.trials}
    made = models.runs_of_versions(store)
    for run_id, run in deleted.items():
        needed = {run_id, run.tags.get("mlflow.parentRunId")} & made or run_id in named or tracking.OPENED in run.tags
        count = 0 if needed else tracking.artifact_size(store, run_id)
        if not needed and (count or not store.uri.startswith("http")):
            what, key = f"deleted run {run.name} ({run_id})", ("run", run_id)
            yield Item(what, count, lambda i=run_id: tracking.purge(store, i), key)  # type: ignore[misc]


def _features(cache: Path, days: int) -> Iterator[Item]:
    """Features and states of trainings on pixels that nobody has used for so many days; they can be made again."""
    for folder in sorted(folder for kind in REMADE for folder in (cache / kind).glob("*/")):
        unused = (time.time() - folder.stat().st_mtime) / 86400
        if unused >= days and not is_held(folder / "lock") and not folder.is_symlink():
            count = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            what = f"{folder.parent.name} {folder.name}, last used {unused:.0f} days ago"
            yield Item(what, count, lambda f=folder: shutil.rmtree(f), ("folder", str(folder)))  # type: ignore[misc]
