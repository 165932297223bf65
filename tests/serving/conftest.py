"""A server for the attacks of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from asked_server import Served

from fer_experiments.config import Config


@pytest.fixture(scope="module")
def served(registered: Config) -> Iterator[Served]:
    served = Served(registered)
    yield served
    assert served.end() == 143
    assert served.command.stderr == "", "an attack has filled the log"
