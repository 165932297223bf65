"""A sweep's report: one self-contained HTML page, which opens from disk with no network."""

from __future__ import annotations

from pathlib import Path

from fer_experiments import tracking
from fer_experiments.config import Config, mlruns_dir
from fer_experiments.lost import said_in_a_line
from fer_experiments.report.page import page
from fer_experiments.report.record import client_of, read_record
from fer_experiments.shards import write_atomically
from fer_experiments.state import find_sweep

__all__ = ["find_sweep", "write_report"]


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
    with said_in_a_line(config, uri):
        record = read_record(state, folder, uri)
        write_atomically(path, lambda file: file.write(page(record).encode()))
        tracking.Run(client_of(uri), record.run_id).log_file(path, path.name)
    return path
