"""Which process a run belongs to."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from fer_experiments.tracking.processes import is_alive, this_process


def other(**changes: Any) -> str:
    return json.dumps({**json.loads(this_process()), **changes})


def started() -> tuple[subprocess.Popen[str], str]:
    code = (
        "import sys; from fer_experiments.tracking.processes import this_process\n"
        "print(this_process(), flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_this_process_lives():
    assert is_alive(this_process()) is True


def test_another_process_lives_until_it_is_killed_reaped_or_not():
    process, name = started()
    with process:
        assert is_alive(name) is True
        process.kill()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
        while is_alive(name):  # a zombie is dead: nobody has waited for it yet
            pass
        assert process.returncode is None
    assert is_alive(name) is False


def test_a_process_id_used_again_is_not_the_same_process():
    assert is_alive(other(start=12.0)) is False


def test_before_a_reboot_all_are_dead():
    assert is_alive(other(boot="another")) is False


def test_another_machine_and_another_container_cannot_be_seen():
    assert is_alive(other(host="elsewhere")) is None
    assert is_alive(other(machine="elsewhere")) is None
    assert is_alive(other(namespace="pid:[1]")) is None


def test_what_is_no_process_cannot_be_told():
    assert is_alive("") is None
    assert is_alive("{}") is None
    assert is_alive("[1]") is None
