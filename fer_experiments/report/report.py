"""A sweep's report: one self-contained HTML page, which opens from disk with no network."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path

from fer_experiments import tracking
from fer_experiments.config import Config, mlruns_dir
from fer_experiments.errors import UserError
from fer_experiments.files import digest, write_atomically
from fer_experiments.report.page import page
from fer_experiments.report.record import read_record
from fer_experiments.report.versus import side_by_side
from fer_experiments.search.recorded import find_sweep
from fer_experiments.search.state import State, is_of
from fer_experiments.terminal import Echo, say
from fer_experiments.tracking import Store

LONGEST = 200  # bytes; file systems take 255
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


def note(line: str, verb: str = "report") -> None:
    """To standard error: standard output has what was asked for and nothing else."""
    say(f"fer {verb}: {line}", sys.stderr)


def write_report(config: Config, sweep: str | None = None, echo: Echo = note) -> Path:
    """Writes report.html into the folder of a recorded sweep, running or not, and logs it on its parent run.

    Of several sweeps it is report-with-<ids of the others, or a digest of many>.html, in the folder and on the run of
    the first. Where the folder may only be read, it is written as <sweep id>.html into the current one.

    Args:
        config: where sweeps and runs are recorded (paths, tracking); nothing else of it is looked at.
        sweep: as in `find_sweep`; several, parted by commas, go side by side.
        echo: hears where it could not be put.

    Raises:
        UserError: no such sweep, a state file that cannot be read, a store without its run, or one that is lost; both
            folders may only be read; several of which two are the same, or whose objectives differ.
    """
    found = _found(mlruns_dir(config) / "sweeps", sweep)
    folders = [folder for _, folder in found]
    name = _named(["report", *(folder.name for folder in folders[1:])])
    store = tracking.connect_existing(config)
    with tracking.said_in_a_line(store):
        records = [read_record(state, folder, store) for state, folder in found]
        text = side_by_side(records) if len(records) > 1 else page(records[0])
        elsewhere = Path.cwd() / _named([folder.name for folder in folders])
        path = _write(text.encode(), (folders[0] / name, elsewhere), echo)
        log_where_allowed(store, records[0].run_id, lambda run: run.log_file(path, name), echo)
    return path


def _named(words: list[str]) -> str:
    """The page's name; a digest of them stands for what no name of a file has room for."""
    name = "-with-".join(words)
    return (name if len(name.encode()) <= LONGEST else f"{words[0]}-with-{digest(words)[:16]}") + ".html"


def _found(sweeps: Path, names: str | None) -> list[tuple[State, Path]]:
    """The sweeps that a word names, with their folders.

    Raises:
        UserError: what `find_sweep` raises; one of them twice; objectives that have no axis in common.
    """
    whole = names is None or any(folder.name == names or is_of(folder.name, names) for folder in sweeps.glob("*"))
    found = [find_sweep(sweeps, name) for name in ([names] if whole else str(names).split(","))]
    first, *others = (state for state, _ in found)
    for place, state in enumerate(others, start=1):
        if state.id in (known.id for known, _ in found[:place]):
            raise UserError(f"sweep={names}: twice the sweep {state.id}; name different ones")
        ours, theirs = (each.identity["sweep.objective"] for each in (first, state))
        if ours != theirs:
            raise UserError(
                f"sweep={names}: {first.id} has {ours} and {state.id} {theirs}; name sweeps of one objective"
            )
    return found


def log_where_allowed(store: Store, run_id: str, log: Callable[[tracking.Run], None], echo: Echo) -> bool:
    """Logs on a run that has ended; whether it could, and `echo` hears why not: of a store that may only be read."""
    if tracking.is_moved(store.uri):  # the run still says where its artifacts were
        echo("not logged on its run: the store was moved, and may only be read now")
        return False
    try:
        log(tracking.Run(store, run_id))
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise
        echo(f"not logged on its run: {error.filename or store} may only be read")
        return False
    return True


def _write(content: bytes, places: tuple[Path, Path], echo: Echo) -> Path:
    """Writes the page to the first of these places or else to the second; returns where it is."""
    for path in places:
        try:
            write_atomically(path, lambda file: file.write(content))
            return path
        except OSError as error:
            if error.errno not in FORBIDDEN:
                raise
            echo(f"not written into {path.parent}: {error.strerror}")
    wanted, here = places
    raise UserError(f"{here.name}: can be written neither into {wanted.parent} nor here; go to another folder")
