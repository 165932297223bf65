"""A sweep: ask the oracle, run the trial, tell the score; stop at any trial and go on with the same command."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fer_experiments import leaderboard, search, tracking
from fer_experiments.config import Config, flatten, mlruns_dir, to_dict, with_values
from fer_experiments.errors import UserError
from fer_experiments.experiment import Prepared, describe_run, prepare, record, smoke
from fer_experiments.space import check_space, decode
from fer_experiments.training import fit_head

MAX_CONSECUTIVE_FAILURES = 3


@dataclass
class State:
    """All that is known of a sweep between two trials: one file, replaced after each tell.

    trials: a dict a trial with number, values, raw (the oracle's own form of them), score, status (finished, failed),
    run_id, metrics, epochs, best_epoch, seconds, error. status: running (or stopped between trials), finished.
    """

    id: str
    name: str
    identity: dict[str, Any]
    status: str = "running"
    run_id: str | None = None
    trials: list[dict[str, Any]] = field(default_factory=list)
    updated: str = ""

    def save(self, folder: Path) -> None:
        """Replaces the state file atomically: a kill leaves the old one or the new one."""
        folder.mkdir(parents=True, exist_ok=True)
        self.updated = datetime.now(UTC).isoformat(timespec="seconds")
        temporary = folder / "state.json.tmp"
        with temporary.open("w") as out:
            json.dump(asdict(self), out)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(folder / "state.json")


def load_state(folder: Path) -> State | None:
    """The state in a sweep's folder, or None.

    Raises:
        UserError: a state file that is no state.
    """
    path = folder / "state.json"
    if not path.exists():
        return None
    try:
        return State(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not a sweep's state ({error}); move it away, or say sweep.fresh=true") from error


def run_sweep(config: Config, echo: Callable[[str], None] = print) -> State:
    """Runs a sweep to its end, from where it stopped if it did.

    Raises:
        UserError: a space, data, weights or a store that cannot be used; three failed trials in a row.
    """
    config = smoke(config)
    check_space(config)
    assert config.sweep is not None
    uri = tracking.connect(config.tracking, mlruns_dir(config))
    prepared = prepare(config, echo)
    state, folder = open_state(config, prepared, echo)
    wanted = config.sweep.max_trials
    # A budget below what has run already must not keep the oracle from being brought back.
    oracle = search.make_oracle(replace(config.sweep, max_trials=wanted and max(wanted, len(state.trials))))
    search.replay(oracle, [(trial["raw"], trial["score"]) for trial in state.trials])
    if state.status == "finished" and not (wanted and len(state.trials) < wanted and not _exhausted(oracle)):
        echo(f"sweep {state.id} is finished: {len(state.trials)} trials (sweep.fresh=true starts it anew)")
    else:
        _go(config, prepared, state, folder, oracle, uri, echo)
    echo(leaderboard.text(state, config.sweep, folder))
    return state


def _exhausted(oracle: Any) -> bool:
    """Whether the oracle has nothing more to ask; asking does not change a state that is saved only after a tell."""
    return search.ask(oracle) is None


def _go(
    config: Config,
    prepared: Prepared,
    state: State,
    folder: Path,
    oracle: Any,
    uri: str,
    echo: Callable[[str], None],
) -> None:
    """The parent run, and the loop of trials in it."""
    assert config.sweep is not None
    with tracking.start_run(
        uri=uri,
        mlruns=mlruns_dir(config),
        experiment=f"fer/{config.data.task}",
        kind="sweep",
        name=state.id,
        config=to_dict(config),
        tags={**prepared.tags, "fer.sweep_id": state.id},
        resume=state.run_id,
        system_metrics=False,  # the trials have them
    ) as parent:
        if state.run_id is None:
            state.run_id = parent.id
            describe_run(parent, prepared.dataset, to_dict(config))
        state.status = "running"
        state.save(folder)
        wanted = config.sweep.max_trials
        while wanted is None or len(state.trials) < wanted:
            trial = search.ask(oracle)
            if trial is None:
                echo(f"the {config.sweep.oracle} oracle has nothing more to try after {len(state.trials)} trials")
                break
            done = _run_trial(config, prepared, state, folder, trial, uri, echo)
            search.tell(oracle, trial, done["score"])
            state.trials.append(done)
            state.save(folder)
            leaderboard.log_progress(parent, state, config.sweep)
            _stop_after_failures(state)
        leaderboard.write(state, config, folder)
        leaderboard.log(parent, state, config.sweep, folder)
        state.status = "finished"
        state.save(folder)


def _run_trial(
    config: Config,
    prepared: Prepared,
    state: State,
    folder: Path,
    trial: Any,
    uri: str,
    echo: Callable[[str], None],
) -> dict[str, Any]:
    """One trial = one child run; an exception fails the trial alone."""
    assert config.sweep is not None and state.run_id is not None
    number = len(state.trials)
    raw = dict(trial.hyperparameters.values)
    values = decode(config.sweep.space, raw)
    one = trial_config(config, values, raw, number)
    weights = folder / "weights"
    came_from = raw.get("tuner/trial_id")
    done: dict[str, Any] = {"number": number, "trial_id": trial.trial_id, "values": values, "raw": raw, "score": None}
    started = time.perf_counter()
    try:
        with tracking.start_run(
            uri=uri,
            mlruns=mlruns_dir(config),
            experiment=f"fer/{config.data.task}",
            kind="trial",
            name=f"trial {number}",
            config=to_dict(one),
            tags={**prepared.tags, "fer.sweep_id": state.id, "fer.trial_number": str(number)},
            parent=state.run_id,
            system_metrics=config.tracking.system_metrics,
        ) as run:
            done["run_id"] = run.id
            describe_run(run, prepared.dataset, to_dict(one))
            fit = fit_head(
                prepared.features,
                prepared.dataset,
                one.head,
                one.training,
                moments=prepared.moments if one.head.normalize else None,
                initial_epoch=int(raw.get("tuner/initial_epoch", 0)),
                initial_weights=str(weights / f"{came_from}.weights.h5") if came_from else None,
                description=f"trial {number}",
            )
            final = record(run, prepared.dataset, fit)
            run.log_head(fit.model, prepared.features.dtype)
            done["score"] = final[config.sweep.objective]
            run.log_metrics({"time/total_s": time.perf_counter() - started})
            if config.sweep.oracle == "hyperband":
                weights.mkdir(parents=True, exist_ok=True)
                fit.model.save_weights(weights / f"{trial.trial_id}.weights.h5")
        done |= {"status": "finished", "metrics": final, "epochs": len(fit.history), "best_epoch": fit.best_epoch}
    except Exception as error:
        done |= {"status": "failed", "error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    done["seconds"] = round(time.perf_counter() - started, 2)
    echo(leaderboard.trial_line(done, config.sweep))
    return done


def trial_config(config: Config, values: dict[str, Any], raw: dict[str, Any], number: int) -> Config:
    """The base config with a trial's values, its seed, and the epochs that Hyperband grants it."""
    assert config.sweep is not None
    extra: dict[str, Any] = {"training.seed": search.seed_of(config.sweep.seed, number + 1)}
    if "tuner/epochs" in raw:
        extra["training.epochs"] = int(raw["tuner/epochs"])
    return replace(with_values(config, {**extra, **values}), sweep=None)


def identity_of(config: Config, prepared: Prepared) -> dict[str, Any]:
    """What makes two sweeps the same, flat: space, oracle, objective, base config, fingerprints."""
    assert config.sweep is not None
    flat = flatten(to_dict(config))
    # Where things are, and how fast they are made, changes no result; max_trials may be raised.
    left_out = {"data.path", "features.batch_size", "features.shard_size", "sweep.max_trials", "sweep.fresh"}
    kept = {k: v for k, v in flat.items() if k not in left_out and not k.startswith(("paths.", "tracking."))}
    return {**kept, **prepared.tags}


def open_state(config: Config, prepared: Prepared, echo: Callable[[str], None]) -> tuple[State, Path]:
    """The state of this very sweep if there is one, else a new one; says which, and what changed since the last."""
    assert config.sweep is not None
    identity = identity_of(config, prepared)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    name = config.sweep.name
    sweeps = mlruns_dir(config) / "sweeps"
    same = sorted(sweeps.glob(f"{name}-{digest}*"), key=lambda p: p.stat().st_mtime)
    if same and not config.sweep.fresh:
        state = load_state(same[-1])
        if state is not None:
            if state.status != "finished":
                echo(f"sweep {state.id}: going on after {len(state.trials)} trials")
            return state, same[-1]
    others = sorted((p for p in sweeps.glob(f"{name}-*/state.json")), key=lambda p: p.stat().st_mtime)
    new = State(id=f"{name}-{digest}" + (f"-{len(same) + 1}" if same else ""), name=name, identity=identity)
    if others and not same:
        last = load_state(others[-1].parent)
        keys = (
            [k for k in sorted({*identity, *last.identity}) if identity.get(k) != last.identity.get(k)] if last else []
        )
        echo(f"sweep {new.id}: a new one, {others[-1].parent.name} differs in {', '.join(keys) or 'nothing'}")
    else:
        echo(f"sweep {new.id}: a new one")
    return new, sweeps / new.id


def _stop_after_failures(state: State) -> None:
    last = state.trials[-MAX_CONSECUTIVE_FAILURES:]
    if len(last) == MAX_CONSECUTIVE_FAILURES and all(t["status"] == "failed" for t in last):
        raise UserError(
            f"sweep {state.id}: the last {len(last)} trials failed, the last with {last[-1]['error']}; "
            "mend the cause and give the same command again to go on"
        )
