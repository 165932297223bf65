"""Which sweeps may fit a trial's config several times."""

from __future__ import annotations

from fer_experiments.config import SweepConfig
from fer_experiments.errors import UserError


def check_repeats(sweep: SweepConfig, grants: bool) -> None:
    """Refuses several fits a trial where trials go on with heads of others.

    grants: whether the oracle gives trials their epochs (`Row`).

    Raises:
        UserError: naming the key and the remedy.
    """
    if sweep.repeats > 1 and grants:
        raise UserError(
            f"sweep.repeats={sweep.repeats}: {sweep.oracle} goes on with the heads of earlier trials, and a trial "
            "keeps one; say sweep.repeats=1, or another oracle"
        )
