"""A sweep's report: one self-contained HTML page, which opens from disk with no network."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path

from fer_experiments import tracking
from fer_experiments.config import Config, mlruns_dir
from fer_experiments.errors import UserError
from fer_experiments.files import write_atomically
from fer_experiments.report.page import page
from fer_experiments.report.record import read_record
from fer_experiments.search.recorded import find_sweep
from fer_experiments.terminal import say
from fer_experiments.tracking import Store

FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


def note(line: str, verb: str = "report") -> None:
    """To standard error: standard output has what was asked for and nothing else."""
    say(f"fer {verb}: {line}", sys.stderr)


def write_report(config: Config, sweep: str | None = None, echo: Callable[[str], None] = note) -> Path:
    """Writes report.html into the folder of a recorded sweep, running or not, and logs it on its parent run.

    Where that may only be read, it is written as <sweep id>.html into the current folder.

    Args:
        config: where sweeps and runs are recorded (paths, tracking); nothing else of it is looked at.
        sweep: as in `find_sweep`.
        echo: hears where it could not be put.

    Raises:
        UserError: no such sweep, a state file that cannot be read, a store without its run, or one that is lost; both
            folders may only be read.
    """
    state, folder = find_sweep(mlruns_dir(config) / "sweeps", sweep)
    store = tracking.connect_existing(config)
    with tracking.said_in_a_line(store):
        record = read_record(state, folder, store)
        path = _write(page(record).encode(), folder, folder.name, echo)
        log_where_allowed(store, record.run_id, lambda run: run.log_file(path, "report.html"), echo)
    return path


def log_where_allowed(
    store: Store, run_id: str, log: Callable[[tracking.Run], None], echo: Callable[[str], None]
) -> bool:
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


def _write(content: bytes, folder: Path, name: str, echo: Callable[[str], None]) -> Path:
    """Writes the page into the sweep's folder or else into the current one; returns where it is."""
    for path in (folder / "report.html", Path.cwd() / f"{name}.html"):
        try:
            write_atomically(path, lambda file: file.write(content))
            return path
        except OSError as error:
            if error.errno not in FORBIDDEN:
                raise
            echo(f"not written into {path.parent}: {error.strerror}")
    raise UserError(f"the report of sweep {name} can be written neither into {folder} nor here: go to another folder")
