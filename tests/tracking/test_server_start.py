"""`make server` as it starts: without PostgreSQL, and with a signal in the middle."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest
from tracking_server import ROOT, needs_postgres

pytestmark = [needs_postgres, pytest.mark.usefixtures("passwordless")]


def test_no_postgresql_is_one_line_with_what_to_install(tmp_path):
    # -S -E and an empty PATH would still find Debian's folder, so this looks from inside the module.
    code = (
        "import sys; sys.path[:0] = [sys.argv.pop(1)]; import postgres, start; "
        "postgres.binaries = lambda version='': None; sys.exit(start.main())"
    )
    command = [sys.executable, "-c", code, str(ROOT / "server"), "--port", "0", "--mlruns", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "apt-get install postgresql" in done.stderr


def test_a_signal_while_a_program_starts_ends_that_too():
    code = f"""
import os, signal, subprocess, sys
sys.path.insert(0, {str(ROOT / "server")!r})
import children
start = subprocess.Popen
def starts(*args, **options):
    process = start(*args, **options)
    print(process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)  # before it is in anyone's hands
    return process
children.leave_on_signals()
subprocess.Popen = starts
with children.running(["sleep", "600"], signal.SIGTERM, 60):
    print("running")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (pid,) = done.stdout.split()
    assert not psutil.pid_exists(int(pid))
