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

FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


def _note(line: str) -> None:
    """To standard error: standard output has the page's path and nothing else."""
    say(f"fer report: {line}", sys.stderr)


def write_report(config: Config, sweep: str | None = None, echo: Callable[[str], None] = _note) -> Path:
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
        if tracking.is_moved(store.uri):  # the run still says where its artifacts were
            echo("not logged on its run: the store was moved, and may only be read now")
            return path
        try:
            tracking.Run(store, record.run_id).log_file(path, "report.html")
        except OSError as error:
            if error.errno not in FORBIDDEN:
                raise
            echo(f"not logged on its run: {error.filename or folder} may only be read")
    return path


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
