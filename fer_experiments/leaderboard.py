"""What a sweep found: leaderboard, best config, pictures, and the next commands to type."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from omegaconf import OmegaConf

from fer_experiments.config import Config, SweepConfig, project_root, to_dict

if TYPE_CHECKING:
    from fer_experiments.state import State
    from fer_experiments.tracking import Run


def table(state: State, sweep: SweepConfig) -> pd.DataFrame:
    """Trials, the best first and the failed last: rank, trial, the objective, the space's paths, and what it took."""
    rows = [
        {
            "trial": trial["number"],
            sweep.objective: trial["score"],
            **{path: _plain(trial["values"][path]) for path in sweep.space},
            "epochs": trial.get("epochs"),
            "best_epoch": trial.get("best_epoch"),
            "seconds": round(trial["seconds"]),
            "status": trial["status"],
            "run_id": trial.get("run_id"),
        }
        for trial in state.ended
    ]
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    frame = frame.sort_values(
        sweep.objective, ascending=sweep.direction == "min", na_position="last", kind="stable", ignore_index=True
    )
    frame.insert(0, "rank", range(1, len(frame) + 1))
    return frame


def markdown(frame: pd.DataFrame) -> str:
    """A table in Markdown, numbers shortened to be read, columns aligned."""
    cells = [list(map(str, frame.columns)), *([_short(v) for v in row] for row in frame.itertuples(index=False))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def trial_line(trial: dict[str, Any], sweep: SweepConfig) -> str:
    """One line about a trial that has just ended."""
    values = ", ".join(f"{path}={_short(value)}" for path, value in trial["values"].items())
    if trial["score"] is None:
        return f"trial {trial['number']}: FAILED: {trial['error']} ({values})"
    how = f"{trial['epochs']} epoch{'s'[: trial['epochs'] != 1]} in {trial['seconds']:.0f} s"
    if trial["status"] == "repeated":
        how = f"as trial {trial['of']} had it, not run again"
    elif trial["status"] == "pruned":
        how += ", worse than the median: pruned"
    elif trial.get("out_of_time"):
        how += ", out of time"
    return f"trial {trial['number']}: {sweep.objective} {trial['score']:.4f}, {how} ({values})"


def text(state: State, sweep: SweepConfig, folder: Path, rows: int = 20) -> str:
    """What `fer sweep` ends with on a terminal."""
    best = state.best()
    if best is None:
        return f"sweep {state.id}: no trial finished"
    frame = table(state, sweep).drop(columns=["run_id"])
    more = f"\n({len(frame) - rows} more in {_shown(folder / 'leaderboard.csv')})" if len(frame) > rows else ""
    low, high = (best["metrics"][f"final/val_accuracy_{end}"] for end in ("low", "high"))
    fer = _command()
    commands = {
        "compare the runs": "make ui  (http://127.0.0.1:5000)",
        "train the best again": f"{fer} train experiment={_shown(folder / 'best.yaml')}",
        "put it to use": f"{fer} promote sweep={state.id}",
        "go on searching": shlex.join([fer, *_said(state), f"sweep.max_trials={2 * len(state.trials)}"]),
    }
    return "\n".join(
        [
            "",
            markdown(frame.head(rows)) + more,
            "",
            f"sweep {state.id}: {len(frame)} trials, best {best['number']}: {sweep.objective} {best['score']:.4f}",
            f"  its accuracy's 95 % interval: {low:.4f} to {high:.4f}; the best of many is flattered by being chosen,",
            "  the sealed test split tells",
            "next:",
            *(f"  {purpose:20}  {command}" for purpose, command in commands.items()),
        ]
    )


def write(state: State, config: Config, folder: Path) -> None:
    """Writes leaderboard.csv, leaderboard.md and best.yaml, for `fer train experiment=<file>`, to this folder."""
    from fer_experiments.sweep import trial_config

    assert config.sweep is not None
    frame = table(state, config.sweep)
    frame.to_csv(folder / "leaderboard.csv", index=False)
    (folder / "leaderboard.md").write_text(markdown(frame) + "\n", encoding="utf-8")
    best = state.best()
    if best is not None:
        container = to_dict(trial_config(config, best["values"], best["raw"], best["number"]))
        for section in ("paths", "tracking"):
            container.pop(section)
        head = f"# Trial {best['number']} of sweep {state.id}: {config.sweep.objective} {best['score']:.4f}\n"
        (folder / "best.yaml").write_text(head + OmegaConf.to_yaml(OmegaConf.create(container)), encoding="utf-8")


def log_progress(parent: Run, state: State, last: dict[str, Any]) -> None:
    """The objective of the trial that ended last and the best so far, as series over trials on the parent run."""
    best = state.best()
    values = {} if last["score"] is None else {"sweep/objective": last["score"]}
    if best is not None:
        values |= {"sweep/best": best["score"], **best["metrics"]}
    parent.log_metrics(values, step=last["number"])


def log(parent: Run, state: State, sweep: SweepConfig, folder: Path) -> None:
    """Leaderboard, best config and the three pictures, on the parent run."""
    from fer_experiments import plots
    from fer_experiments.importance import importances

    for name in ("leaderboard.csv", "leaderboard.md", "best.yaml"):
        if (folder / name).exists():
            parent.log_file(folder / name, name)
    if not state.ended:
        return
    trials = table(state, sweep).sort_values("trial", ignore_index=True)
    space = trials[[sweep.objective, *sweep.space]]
    scores = [trial["score"] for trial in state.ended]
    parent.log_figure(plots.objective_over_trials(scores, sweep.direction, sweep.objective), "plots/objective.png")
    parent.log_figure(
        plots.parallel_coordinates(space, sweep.objective, sweep.direction), "plots/parallel_coordinates.png"
    )
    parent.log_figure(plots.importances(importances(space, sweep.objective)), "plots/importances.png")


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


def _short(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}" if abs(value) < 0.01 or abs(value) >= 1000 else f"{value:.4f}"
    return "" if value is None else str(value)


def _said(state: State) -> list[str]:
    """The arguments this sweep was asked for with, its budget left out: with other overrides it were another sweep."""
    if sys.argv[1:2] != ["sweep"]:
        return ["sweep", f"sweep={state.name}"]
    budget = ("sweep.max_trials=", "sweep.max_hours=", "sweep.target=", "sweep.fresh=")
    return [a for a in sys.argv[1:] if not a.startswith((*budget, "compute.address="))]


def _shown(path: Path) -> str:
    """A path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _command() -> str:
    """`fer`, the way it was called."""
    called = Path(sys.argv[0])
    venv = project_root() / ".venv" / "bin" / "fer"
    return _shown(venv) if called.resolve() == venv.resolve() else "fer"
