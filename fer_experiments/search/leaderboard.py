"""What a sweep found: leaderboard, best config, and the next commands to type."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fer_experiments import tracking
from fer_experiments.config import Config, SweepConfig, experiment, mlruns_dir, to_dict, to_yaml, without_password
from fer_experiments.config.commands import command, ui_command
from fer_experiments.files import write_text
from fer_experiments.search import budget
from fer_experiments.search.identity import trial_config
from fer_experiments.search.recorded import find_sweep
from fer_experiments.search.spread import PREFERENCES, taken, tied
from fer_experiments.search.start import words
from fer_experiments.search.state import State
from fer_experiments.search.trials import Trial
from fer_experiments.terminal import markdown, number, shown
from fer_experiments.tracking import Run
from fer_experiments.training.pruning import REASONS

NAMED = 8  # trials named in a line
ABSENT = "absent"  # the value of a key whose condition (`when`) did not hold


def written(value: Any) -> str:
    """A value as text, as a config says it."""
    return value if isinstance(value, str) else json.dumps(value)


def table(state: State, sweep: SweepConfig) -> pd.DataFrame:
    """Trials as they are standing (`State.standing`): rank, trial, the objective, the space's paths, what it took.

    At a path a list or null is its JSON, and a key that was absent has no value.
    Where trials have several fits, besides: std, of the objective; tied, "best", or "yes" of those that cannot be told
    from it (`spread`); and parameters, of the head.
    """
    spread = any(trial.scores for trial in state.ended)
    equals = {trial.number: "yes" if place else "best" for place, trial in enumerate(tied(state))}
    rows = [
        {
            "trial": trial.number,
            sweep.objective: trial.score,
            **({"std": trial.std, "tied": equals.get(trial.number, "no")} if spread else {}),
            **{path: _plain(trial.values[path]) if path in trial.values else None for path in sweep.space},
            **({"parameters": trial.parameters} if spread else {}),
            "epochs": trial.epochs,
            "best_epoch": trial.best_epoch,
            "seconds": round(trial.seconds or 0),
            "status": trial.status,
            "run_id": trial.run_id,
        }
        for trial in state.standing()
    ]
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    whole = [name for name in ("parameters", "epochs", "best_epoch") if name in frame]
    frame = frame.astype(dict.fromkeys(whole, "Int64"))  # failed trials have none
    frame.insert(0, "rank", range(1, len(frame) + 1))
    return frame


def recorded_trials(config: Config, sweep: str | None = None) -> pd.DataFrame:
    """The `table` of a recorded sweep.

    Args:
        config: where sweeps are recorded (paths); nothing else of it is looked at.
        sweep: as in `find_sweep`.

    Raises:
        UserError: no such sweep.
    """
    state, _ = find_sweep(mlruns_dir(config) / "sweeps", sweep)
    return table(state, state.settings)


def _markdown(frame: pd.DataFrame) -> str:
    """A table in Markdown, numbers shortened to be read."""
    return markdown(
        [list(map(str, frame.columns)), *([_short(v) for v in row] for row in frame.itertuples(index=False))]
    )


def _readable(frame: pd.DataFrame, sweep: SweepConfig) -> pd.DataFrame:
    """The table for people: keys that were absent are said to be."""
    searched = [path for path in sweep.space if path in frame]  # none where no trial has ended
    columns = {path: frame[path].astype(object).where(frame[path].notna(), ABSENT) for path in searched}
    return frame.assign(**columns)


def trial_line(trial: Trial, sweep: SweepConfig) -> str:
    """One line about a trial that has just ended."""
    values = values_text(trial.values)
    if trial.score is None:
        return f"trial {trial.number}: FAILED: {trial.error} ({values})"
    how = f"{trial.epochs} epoch{'s'[: trial.epochs != 1]} in {trial.seconds or 0:.0f} s"
    if trial.status == "repeated":
        how = f"as trial {trial.of} had it, not run again"
    elif trial.status == "pruned":
        how += f", {REASONS[sweep.pruner]}: pruned"
    elif trial.out_of_time:
        how += ", out of time"
    return f"trial {trial.number}: {sweep.objective} {trial.score:.4f}{spread_of(trial)}, {how} ({values})"


def spread_of(trial: Trial) -> str:
    """What is said after a score: its standard deviation over the trial's fits, or nothing."""
    return "" if trial.std is None else f" ± {trial.std:.4f} over {len(trial.scores)} fits"


def choice(state: State) -> list[str]:
    """Lines about the trials that cannot be told from the best, and the one that is taken; none without a spread."""
    best, *others = tied(state)
    if best.std is None:
        return []
    numbers = ", ".join(str(trial.number) for trial in others[:NAMED]) + (", ..." if len(others) > NAMED else "")
    lines = ["every other trial differs from it by more than the standard error of the difference"]
    if others:
        which = "trial" if len(others) == 1 else f"{len(others)} trials:"
        lines = [f"not to be told from it, by the standard error of the difference: {which} {numbers}"]
    if state.prefer != "best" and (chosen := taken(state)):
        how, _ = PREFERENCES[state.prefer]
        lines.append(f"taken of these: trial {chosen.number}, which has {how} (sweep.prefer={state.prefer})")
    return lines


def values_text(values: Mapping[str, Any]) -> str:
    """A trial's values on a line."""
    return ", ".join(f"{path}={_short(value)}" for path, value in values.items())


def text(state: State, config: Config, folder: Path, rows: int = 20) -> str:
    """What `fer sweep` ends with on a terminal."""
    assert config.sweep is not None
    best, sweep = state.best(), config.sweep
    if best is None:
        return f"sweep {state.id}: no trial finished"
    frame = _readable(table(state, sweep), sweep).drop(columns=["run_id"])
    more = f"\n({len(frame) - rows} more in {shown(folder / 'leaderboard.csv')})" if len(frame) > rows else ""
    low, high = (best.metrics[f"final/val_accuracy_{end}"] for end in ("low", "high"))
    commands = {
        "compare the runs": ui_command(config, tracking.address(config)),
        "train the best again": command("train", f"experiment={shown(folder / 'best.yaml')}", config=config),
    }
    if not config.training.smoke:  # which is for trying a command, and cannot be promoted
        commands["put it to use"] = command("promote", f"sweep={state.id}", config=config)
        if budget.more(state, sweep) is not None and (typed := going_on(state, config)):
            commands["go on searching"] = typed
    return "\n".join(
        [
            "",
            _markdown(frame.head(rows)) + more,
            "",
            f"sweep {state.id}: {budget.counted(state)}, best {best.number}: "
            f"{sweep.objective} {best.score:.4f}{spread_of(best)}",
            *(f"  {line}" for line in choice(state)),
            f"  its accuracy's 95 % interval: {low:.4f} to {high:.4f}; the best of many is flattered by being chosen,",
            "  the sealed test split tells",
            *([f"  {begun}"] if (begun := words(state)) else []),
            "next:",
            *(f"  {purpose:20}  {command}" for purpose, command in commands.items()),
        ]
    )


def write(state: State, config: Config, folder: Path) -> None:
    """Writes leaderboard.csv, leaderboard.md and best.yaml, for `fer train experiment=<file>`, to this folder, once a
    trial has ended."""
    assert config.sweep is not None
    if not state.told:
        return
    frame = table(state, config.sweep)
    texts = {"leaderboard.csv": frame.to_csv(index=False)}
    texts["leaderboard.md"] = _markdown(_readable(frame, config.sweep)) + "\n"
    chosen = taken(state)
    if chosen is not None:
        container = experiment(to_dict(trial_config(config, chosen)))
        head = f"# Trial {chosen.number} of sweep {state.id}: {config.sweep.objective} {chosen.score:.4f}"
        head += "\n" if state.prefer == "best" else f" (sweep.prefer={state.prefer})\n"
        texts["best.yaml"] = head + to_yaml(container)
    for name, text in texts.items():
        write_text(folder / name, text)


def log_progress(parent: Run, state: State, last: Trial, sweep: SweepConfig, told: Trial | None) -> Trial | None:
    """The objective of the trial that ended last and the best so far, as series on the parent run; returns the best.

    A step is a trial that has ended, in the order of ending, so that the last one shows what is so now. What the best
    has stands beside its metrics as tags and in the run's description, unless it was `told` there: a param could not
    change.
    """
    best = state.best()
    values = {} if last.score is None else {"sweep/objective": last.score}
    if best is not None and best.score is not None:
        values |= {"sweep/best": best.score, **best.metrics}
    parent.log_metrics(values, step=len(state.told) - 1)
    if best is not None and (best is not told or best is last):
        had = {path: written(best.values[path]) if path in best.values else ABSENT for path in sweep.space}
        parent.set_tags({"fer.best_trial": best.number, **{f"fer.best.{path}": text for path, text in had.items()}})
        lines = [f"| {path} | {text} |" for path, text in had.items()]
        parent.describe(
            f"Best so far: trial {best.number}, {sweep.objective} {best.score:.4f}\n\n"
            + "\n".join(["| searched | in the best trial |", "|---|---|", *lines])
        )
    return best


def log(parent: Run, folder: Path) -> None:
    """Leaderboard and best config, on the parent run."""
    for name in ("leaderboard.csv", "leaderboard.md", "best.yaml"):
        if (folder / name).exists():
            parent.log_file(folder / name, name)


def _plain(value: Any) -> Any:
    """A value for a table, in which None is no value: null, as lists, by its JSON."""
    return json.dumps(value) if value is None or isinstance(value, list) else value


def _short(value: Any) -> str:
    if value is pd.NA or value is None or value != value:
        return ""
    return number(value) if isinstance(value, float) else str(value)


def going_on(state: State, config: Config) -> str:
    """The command that goes on with a sweep, by as much of each part of its budget that is spent; "" where none began
    it: what a script has composed is not to be seen in what it has come to."""
    assert config.sweep is not None
    if sys.argv[1:2] != ["sweep"]:
        return ""
    more = [f"{path}={written(value)}" for path, value in (budget.more(state, config.sweep) or {}).items()]
    left_out = {"compute.address", "sweep.fresh", *(each.partition("=")[0] for each in more)}
    said = [without_password(a) for a in sys.argv[2:] if a.partition("=")[0].lstrip("+") not in left_out]
    if not any(a.startswith(("sweep=", "sweep.name=", "experiment=")) for a in said):
        said.insert(0, f"sweep={state.name}")
    return command("sweep", *said, *more)
