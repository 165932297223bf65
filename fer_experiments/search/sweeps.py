"""`fer sweeps`: the recorded sweeps; and one that runs, asked to stop."""

from __future__ import annotations

from fer_experiments.config import Config
from fer_experiments.errors import UserError
from fer_experiments.search.recorded import list_sweeps
from fer_experiments.search.stop import stop

FLAGS = {"true": True, "now": True, "false": False}


def sweeps(config: Config, stopped: str | None = None, now: str = "false") -> str:
    """What to print: the table of all sweeps, or of `stop <id>` (stopped: the id) what comes of it.

    Raises:
        UserError: what `stop` raises; a flag that is none.
    """
    if now not in FLAGS:
        raise UserError(f"now={now}: must be true or false")
    if stopped is None:
        if FLAGS[now]:
            raise UserError("now: belongs to `fer sweeps stop <id>`")
        return list_sweeps(config)
    return stop(config, None if stopped == "stop" else stopped, now=FLAGS[now])
