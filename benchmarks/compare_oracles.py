"""Ways to search at an equal budget of epochs, on real faces: oracles, and with them ASHA.

    FER2013=<zip> python benchmarks/compare_oracles.py --features pocket|facenet --json oracles.json --png oracles.png
        [--ways random tpe ...] [--seeds 5] [--budget 360]

Six hyperparameters of a pooled head: seven emotions on features from the middle of the pocket backbone, or happy
against angry, fear and sad on FaceNet's Block17_10_out, averaged. Early stopping is off, so that a trial spends the
epochs it is granted: 12 each, or what Hyperband says, or ASHA leaves it (rungs at 1, 3 and 9 epochs). Hyperband begins
anew when it has no more, and a trial that does not fit into what is left of the budget is not run. The score is the
validation accuracy of the best epoch; a trial that ASHA ended is none of the best.
Each (way, seed) is written when it is done, and not run again by the same command.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras_tuner as kt
import numpy as np
import optuna
from matplotlib.figure import Figure

from fer_experiments.config import SweepConfig, with_values
from fer_experiments.config.compose import compose
from fer_experiments.evaluation.metrics import classification_metrics
from fer_experiments.evaluation.style import COLOURS, finish
from fer_experiments.experiment.prepare import Prepared, prepare
from fer_experiments.search import tpe
from fer_experiments.search.identity import seed_of
from fer_experiments.search.oracle import ask, make_oracle, tell
from fer_experiments.search.space import decode
from fer_experiments.terminal import counted
from fer_experiments.training.fit import FitError, fit_head, forget
from fer_experiments.training.pruning import rungs
from fer_experiments.training.stopping import Pruning

WAYS = ("random", "bayesian", "tpe", "tpe, multivariate", "hyperband", "random, asha", "tpe, asha")
EPOCHS = 12
SPACE: dict[str, Any] = {
    "head.l2": {"type": "float", "min": 1e-6, "max": 1e-1, "sampling": "log"},
    "head.dense_widths": {"type": "choice", "values": [[], [32], [128], [512], [128, 64], [512, 128]]},
    "head.dropout": {"type": "float", "min": 0.0, "max": 0.8},
    "head.normalize": {"type": "bool"},
    "training.learning_rate": {"type": "float", "min": 1e-5, "max": 1e-1, "sampling": "log"},
    "training.batch_size": {"type": "choice", "values": [128, 256, 512, 1024]},
}
FEATURES = {
    # Half way, where the head has something left to do.
    "pocket": ["data=fer2013_seven", "data.limit=6000", "backbone=pocket", "backbone.layers=[stage2]"],
    "facenet": ["data=fer2013", "data.limit=6000", "backbone=facenet", "features.precision=bfloat16"],
}
BASE = [
    "backbone.pooling=avg",
    "head=pooled",
    "training.monitor=val_accuracy",
    f"training.patience={EPOCHS + 1}",
    f"training.epochs={EPOCHS}",
]


def joint(oracle: tpe.TpeOracle, number: int) -> dict[str, Any]:
    """What TPE suggests that draws all hyperparameters together, by the good trials' joint density."""
    sampler = optuna.samplers.TPESampler(
        n_startup_trials=0, multivariate=True, constant_liar=True, seed=seed_of(oracle.seed, number)
    )
    drawn = sampler.sample_relative(oracle.study, oracle.asking, oracle.distributions)
    return {hp.name: tpe.value(hp, drawn[hp.name]) for hp in oracle.hyperparameters.space}


@dataclass
class Search:
    """What a search has done so far."""

    spent: int = 0  # epochs
    best: float = 0.0
    trials: int = 0
    failed: int = 0
    asking: float = 0.0  # seconds in the oracle
    curve: list[tuple[int, float]] = field(default_factory=list)  # epochs spent and best, after each trial
    curves: list[list[float]] = field(default_factory=list)  # validation accuracy by epoch, of each trial


def fit(
    prepared: Prepared, raw: dict[str, Any], seed: int, weights: dict[str, Any], name: str, pruning: Pruning
) -> tuple[float | None, int]:
    """The validation accuracy of a trial, None when it failed, and its epochs; weights are kept for Hyperband."""
    granted, parent = int(raw.get("tuner/epochs", EPOCHS)), raw.get("tuner/trial_id")
    initial = int(raw.get("tuner/initial_epoch", 0))
    values = {"training.epochs": granted, "training.seed": seed, **decode(SPACE, raw)}
    config = with_values(prepared.config, values)
    forget()
    try:
        result = fit_head(
            prepared.features,
            prepared.dataset,
            config.head,
            config.training,
            moments=prepared.moments[0] if config.head.normalize else None,
            initial_epoch=initial,
            initial_weights=weights[parent] if parent else None,
            callbacks=[pruning],
        )
    except FitError:
        return None, granted - initial
    if "tuner/epochs" in raw:
        weights[name] = result.model.get_weights()
    labels = prepared.dataset.labels[prepared.dataset.val]
    return classification_metrics(labels, result.val_probabilities)["accuracy"], len(result.history)


def explore(prepared: Prepared, way: str, seed: int, budget: int) -> dict[str, Any]:
    """One search: (epochs spent, best so far) after each trial, and where the time went."""
    done, started, restart, number = Search(), time.perf_counter(), 0, 0
    oracle: kt.Oracle | None = None
    weights: dict[str, Any] = {}
    while True:
        before = time.perf_counter()
        if oracle is None:
            oracle, weights, number = oracle_of(way, seed + 1000 * restart), {}, 0
        trial = ask(oracle, number)
        done.asking += time.perf_counter() - before
        if trial.status != "RUNNING":
            oracle, restart = None, restart + 1
            continue
        raw = trial.hyperparameters.values
        if done.spent + int(raw.get("tuner/epochs", EPOCHS)) - int(raw.get("tuner/initial_epoch", 0)) > budget:
            break
        limits = rungs(done.curves, "max", 1, 3) if "asha" in way else []
        pruning = Pruning("asha", "val_accuracy", "max", limits)
        score, epochs = fit(prepared, raw, seed_of(seed, done.trials + 1), weights, trial.trial_id, pruning)
        before = time.perf_counter()
        tell(oracle, trial, score)
        done.asking += time.perf_counter() - before
        done.curves.append(pruning.curve)
        if pruning.epoch is None:
            done.best = max(done.best, score or 0.0)
        done.spent += epochs
        done.trials, done.failed, number = done.trials + 1, done.failed + (score is None), number + 1
        done.curve.append((done.spent, done.best))
    seconds = {"oracle_s": done.asking, "total_s": time.perf_counter() - started}
    found = {key: getattr(done, key) for key in ("best", "trials", "failed", "curve")}
    return {"way": way, "seed": seed, **found, **seconds}


def oracle_of(way: str, seed: int) -> kt.Oracle:
    """A fresh oracle of a way to search."""
    name = way.partition(",")[0]
    sweep = SweepConfig(name, name, seed=seed, max_trials=10**6, max_epochs=EPOCHS, space=SPACE)
    oracle = make_oracle(sweep)
    if "multivariate" in way:
        oracle.suggest = partial(joint, oracle)
    return oracle


def table(runs: list[dict[str, Any]]) -> str:
    """The best accuracy over seeds of each oracle, as Markdown."""
    lines = ["| way | seeds | trials | mean | std | min | max | s in the oracle |", "| --- |" + " ---: |" * 7]
    for name in WAYS:
        own = [run for run in runs if run["way"] == name]
        if own:
            best = np.array([run["best"] for run in own])
            spread = best.std(ddof=1) if len(best) > 1 else 0.0
            trials, asking = (np.mean([run[key] for run in own]) for key in ("trials", "oracle_s"))
            scores = " | ".join(f"{value:.4f}" for value in (best.mean(), spread, best.min(), best.max()))
            lines.append(f"| {name} | {len(own)} | {trials:.0f} | {scores} | {asking:.1f} |")
    return "\n".join(lines)


def picture(runs: list[dict[str, Any]], budget: int) -> Figure:
    """Best so far against epochs spent: the mean over seeds, and a standard deviation to each side."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    epochs, final = np.arange(EPOCHS, budget + 1), []
    for colour, name in zip(COLOURS, WAYS, strict=False):
        curves = [np.array(run["curve"]) for run in runs if run["way"] == name and run["curve"]]
        if not curves:
            continue
        best = [[c[c[:, 0] <= e, 1].max(initial=0.0) for e in epochs] for c in curves]
        mean, spread = np.mean(best, axis=0), np.std(best, axis=0)
        axes.step(epochs, mean, where="post", color=colour, label=f"{name} ({mean[-1]:.4f})")
        axes.fill_between(epochs, mean - spread, mean + spread, step="post", color=colour, alpha=0.15, linewidth=0)
        final.append(mean[-1])
    if final:
        axes.set_ylim(min(final) - 0.03, max(final) + 0.006)
    axes.set(xlabel="epochs spent", ylabel="best validation accuracy so far")
    axes.legend(loc="lower right")
    finish(axes)
    seeds = counted(len({run["seed"] for run in runs}), "seed")
    figure.suptitle(f"At an equal budget of epochs, mean ± standard deviation over {seeds}")
    return figure


def load(path: Path | None, setting: dict[str, Any]) -> dict[str, Any]:
    """The results so far, when they are of this very comparison."""
    if path is None or not path.exists():
        return {"setting": setting, "runs": []}
    results: dict[str, Any] = json.loads(path.read_text())
    if results["setting"] != setting:
        raise SystemExit(f"{path}: of another space, data or budget; give another --json")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", choices=FEATURES, default="pocket")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=30 * EPOCHS, help="epochs a search may spend")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    options = parser.parse_args()
    overrides = [*FEATURES[options.features], *BASE]
    setting = {"space": SPACE, "config": overrides, "epochs": EPOCHS, "budget": options.budget}
    results = load(options.json, setting)
    done = {(run["way"], run["seed"]) for run in results["runs"]}
    todo = [(name, seed) for seed in range(options.seeds) for name in options.ways if (name, seed) not in done]
    prepared = prepare(compose(overrides)) if todo else None
    for name, seed in todo:
        assert prepared is not None
        results["runs"].append(run := explore(prepared, name, seed, options.budget))
        print(
            f"{name} seed {seed}: best {run['best']:.4f} of {run['trials']} trials in {run['total_s']:.0f} s",
            flush=True,
        )
        if options.json:
            temporary = options.json.with_suffix(".tmp")
            temporary.write_text(json.dumps(results))
            temporary.replace(options.json)
    print(table(results["runs"]))
    if options.png:
        picture(results["runs"], options.budget).savefig(options.png, dpi=150)


if __name__ == "__main__":
    main()
