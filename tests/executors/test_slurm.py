"""The Slurm script as one node of a cluster runs it: Slurm itself is some variables of the environment then."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fer_experiments.config import Config, PathsConfig
from fer_experiments.search.recorded import list_sweeps
from fer_experiments.search.state import load_state

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "sweeps" / "slurm.sbatch"
PATIENCE = 900  # seconds; a hang, not a slow machine

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("bash") is None, reason="Slurm is for Linux, the script for bash"
)


def environment(folder: Path, job: int) -> dict[str, str]:
    slurm = {
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_ID": str(job),
        "SLURM_JOB_NUM_NODES": "1",
        "SLURMD_NODENAME": "n1",
        "SLURM_CPUS_ON_NODE": "1",
    }
    return {**os.environ, **slurm, "TF_NUM_INTRAOP_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def test_another_folder_than_the_projects_is_refused_in_one_line(tmp_path: Path):
    done = subprocess.run(["bash", SCRIPT], env=environment(tmp_path, 1), capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"slurm.sbatch: no .venv in {tmp_path}") and done.stderr.count("\n") == 1


@pytest.mark.skipif(not (ROOT / ".venv" / "bin" / "ray").exists(), reason="the script runs what `make setup` installs")
def test_sigterm_stops_the_sweep_with_everything_recorded_and_leaves_nothing_behind(tmp_path: Path):
    job = 900_000_000 + os.getpid()  # of no other process' test
    small = ["sweep=quick", "data.limit=60", "data.demo_size=600", "tracking.system_metrics=false"]
    endless = ["training.epochs=100000", "training.patience=100000"]
    places = [f"paths.mlruns={tmp_path / 'mlruns'}", f"paths.cache={tmp_path / 'cache'}"]
    out = tmp_path / "out"
    with out.open("w") as file:
        batch = subprocess.Popen(
            ["bash", SCRIPT, *small, *endless, *places], env=environment(ROOT, job), stdout=file, stderr=file
        )
    begun = psutil.Process(batch.pid)
    try:
        waited = time.monotonic() + PATIENCE
        while "trials run on a Ray cluster of 1 node, 1 at a time" not in out.read_text():
            assert batch.poll() is None and time.monotonic() < waited, out.read_text()
            time.sleep(0.5)
        assert [path.stat().st_mode & 0o777 for path in left_of(job)] == [0o700]
        batch.send_signal(signal.SIGTERM)
        assert batch.wait(PATIENCE) == 128 + signal.SIGTERM
    finally:
        for process in [*begun.children(recursive=True), begun] if begun.is_running() else []:
            process.kill()
    assert left_of(job) == []
    assert [p.pid for p in psutil.process_iter(["cmdline"]) if f"fer-{job}-" in " ".join(p.info["cmdline"] or [])] == []
    [folder] = (tmp_path / "mlruns" / "sweeps").glob("quick-*")
    state = load_state(folder)
    assert state is not None and len(state.in_flight) <= 1
    assert "stopped" in list_sweeps(Config(paths=PathsConfig(mlruns=str(tmp_path / "mlruns"))))


def left_of(job: int) -> list[Path]:
    return list(Path("/tmp").glob(f"fer-{job}-*"))
