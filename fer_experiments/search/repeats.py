"""Which sweeps may fit a trial's config several times."""

from __future__ import annotations

from fer_experiments.config import ALL_FOLDS, Config
from fer_experiments.errors import UserError


def check_repeats(config: Config, grants: bool) -> None:
    """Refuses several fits a trial where trials go on with heads of others, or fine-tune, and a preference that needs
    several without.

    grants: whether the oracle gives trials their epochs (`Row`).

    Raises:
        UserError: naming the key and the remedy.
    """
    sweep = config.sweep
    assert sweep is not None
    ended = grants or sweep.pruner != "none" or sweep.max_trial_minutes is not None
    if config.training.unfreeze is not None and (ended or is_repeated(config)):
        raise UserError(
            "training=finetune: its trials are one fit each and not ended before their time: say another sweep.oracle "
            "than hyperband, sweep.pruner=none, sweep.max_trial_minutes=null, sweep.repeats=1 and a number as data.fold"
        )
    if sweep.prefer != "best" and not is_repeated(config):
        raise UserError(
            f"sweep.prefer={sweep.prefer}: it chooses by the spread over several fits of a trial; with it say "
            "sweep.repeats=3 or data.split=kfold data.fold=all, or leave it out"
        )
    if not grants or not is_repeated(config):
        return
    key, one = ("sweep.repeats", 1) if sweep.repeats > 1 else ("data.fold", 0)
    raise UserError(
        f"{key}={sweep.repeats if sweep.repeats > 1 else config.data.fold}: {sweep.oracle} goes on with the heads of "
        f"earlier trials, and a trial keeps one; say {key}={one}, or another oracle"
    )


def is_repeated(config: Config) -> bool:
    """Whether a trial has several fits, which tell how much its objective is worth."""
    assert config.sweep is not None
    return config.sweep.repeats > 1 or config.data.fold == ALL_FOLDS
