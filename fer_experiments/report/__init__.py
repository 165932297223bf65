"""A sweep's report: one self-contained HTML page, which opens from disk with no network."""

from __future__ import annotations

from pathlib import Path

from fer_experiments import tracking
from fer_experiments.config import Config, close, mlruns_dir
from fer_experiments.errors import UserError
from fer_experiments.report.page import page
from fer_experiments.report.record import client_of, read_record
from fer_experiments.shards import write_atomically
from fer_experiments.state import State, load_state

__all__ = ["find_sweep", "write_report"]

MOST_NAMED = 8  # sweeps in an error message


def write_report(config: Config, sweep: str | None = None) -> Path:
    """Writes report.html into the folder of a recorded sweep, running or not, and logs it on its parent run.

    Args:
        config: where sweeps and runs are recorded (paths, tracking); nothing else of it is looked at.
        sweep: as in `find_sweep`.

    Raises:
        UserError: no such sweep, a state file that cannot be read, a store without its run, or one that is lost.
    """
    state, folder = find_sweep(mlruns_dir(config) / "sweeps", sweep)
    uri = tracking.connect(config.tracking, mlruns_dir(config))
    path = folder / "report.html"
    try:
        record = read_record(state, folder, uri)
        write_atomically(path, lambda file: file.write(page(record).encode()))
        tracking.Run(client_of(uri), record.run_id).log_file(path, path.name)
    except Exception as error:
        if tracking.is_full_disk(error):
            raise UserError(f"{folder}: the disk is full; free space and give the same command again") from error
        if tracking.is_outage(error):
            raise UserError(f"the tracking store {uri} is lost ({type(error).__name__}): bring it back") from error
        raise
    return path


def find_sweep(sweeps: Path, name: str | None = None) -> tuple[State, Path]:
    """A recorded sweep and its folder.

    Args:
        sweeps: the folder of all sweeps.
        name: a sweep's id; or its name, for the last active one of that name; or None, for the last active one.

    Raises:
        UserError: there is none, with those that there are; or its state file cannot be read.
    """
    folders = {path.parent.name: path.parent for path in sweeps.glob("*/state.json")}
    if not folders:
        raise UserError(f"no sweeps in {sweeps}; `fer sweep` starts one, paths.mlruns=<folder> looks elsewhere")
    chosen = [name] if name in folders else [i for i in folders if name is None or i.startswith(f"{name}-")]
    states = [(state, folders[i]) for i in chosen if (state := load_state(folders[i]))]
    found = [(s, f) for s, f in states if name in (None, s.id, s.name)]
    if not found:
        assert name is not None
        latest = sorted(folders, key=lambda i: folders[i].joinpath("state.json").stat().st_mtime, reverse=True)
        names = [i.rpartition("-")[0] for i in latest]
        others = f"; there are {', '.join(latest[:MOST_NAMED])}" + (", ..." if len(latest) > MOST_NAMED else "")
        raise UserError(f"sweep={name}: no such sweep in {sweeps}{close(name, [*latest, *names]) or others}")
    return max(found, key=lambda pair: pair[0].updated)
