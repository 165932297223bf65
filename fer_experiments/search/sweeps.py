"""`fer sweeps`: the recorded sweeps; and one of them watched, or asked to stop, while it runs."""

from __future__ import annotations

from fer_experiments.config import Config
from fer_experiments.errors import UserError
from fer_experiments.search.recorded import list_sweeps

FLAGS = {"true": True, "now": True, "false": False}


def sweeps(config: Config, stopped: str | None = None, watched: str | None = None, now: str = "false") -> str:
    """What to print: the table of all sweeps; or what `stop <id>` (stopped) or `watch <id>` (watched) comes to.

    Raises:
        UserError: what those raise; arguments that do not go together.
    """
    if now not in FLAGS:
        raise UserError(f"now={now}: must be true or false")
    if stopped is None and FLAGS[now]:
        raise UserError("now: belongs to `fer sweeps stop <id>`")
    if stopped is not None and watched is not None:
        raise UserError("stop and watch: say one of them")
    if watched is not None:
        from fer_experiments.search.watch import (
            watch,  # here: MLflow and Keras take seconds, and the table needs neither
        )

        return watch(config, None if watched == "watch" else watched)
    if stopped is not None:
        from fer_experiments.search.stop import stop

        return stop(config, None if stopped == "stop" else stopped, now=FLAGS[now])
    return list_sweeps(config)
