"""What repeats are worth at an equal number of fits: what each way to search chose, fitted anew with other seeds.

    FER2013=<zip> python benchmarks/compare_repeats.py --json repeats.json [--seeds 5] [--fits 24] [--fresh 10]

Sweeps of a dense head on FaceNet's averaged features, happy against angry, fear and sad, with random search and TPE:
one fit a trial; three seeds a trial, and a third of the trials; one fit a trial, and for the rest of the fits the three
best once more with three seeds each, as a promotion does. What each chose is fitted with seeds that none has seen.
Each (oracle, way, seed) is written when it is done, and not run again by the same command.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from fer_experiments.config import Config
from fer_experiments.config.compose import compose
from fer_experiments.evaluation.seeds import Spread, spread
from fer_experiments.experiment.prepare import Prepared, prepare
from fer_experiments.experiment.repeats import fit_all
from fer_experiments.files import write_json
from fer_experiments.search.identity import trial_config
from fer_experiments.search.spread import taken
from fer_experiments.search.sweep import run_sweep
from fer_experiments.training.fit import forget

WAYS = ("one fit", "three fits", "one fit, the best three again")
REPEATS = 3  # fits of a trial, and of each of the best three
BASE = [
    "data=fer2013", "backbone=facenet", "backbone.pooling=avg", "features.precision=bfloat16", "head=pooled",
    "training.epochs=15", "training.patience=4", "training.monitor=val_accuracy", "training.batch_size=256",
    "tracking.system_metrics=false",
]  # fmt: skip
SPACE = {
    "head.l2": "{type: float, min: 1.0e-6, max: 1.0e-2, sampling: log}",
    "head.dense_widths": "{type: choice, values: [[], [64], [256], [512, 128]]}",
    "head.dropout": "{type: float, min: 0.0, max: 0.7}",
    "training.learning_rate": "{type: float, min: 1.0e-4, max: 1.0e-2, sampling: log}",
}
FRESH = 10**6  # the seed that those of the last fits are made of


def search(oracle: str, way: str, seed: int, fits: int, folder: str) -> tuple[Config, float]:
    """One sweep: the config that it chose, and what the sweep said of it."""
    repeats = REPEATS if way == "three fits" else 1
    trials = (fits - REPEATS * 3 if "again" in way else fits) // repeats
    said = [f"sweep.oracle={oracle}", f"sweep.seed={seed}", f"sweep.repeats={repeats}", f"sweep.max_trials={trials}"]
    (Path(folder) / "compared.yaml").write_text(
        "sweep:\n  name: compared\n  space:\n" + "".join(f"    {key}: {value}\n" for key, value in SPACE.items())
    )
    config = compose([f"sweep={folder}/compared.yaml", *BASE, *said, f"paths.mlruns={folder}/mlruns"])
    state = run_sweep(config, echo=lambda line: None)
    best = taken(state)
    assert best is not None and best.score is not None
    if "again" not in way:
        return trial_config(config, best), best.score
    again = [trial_config(config, trial) for trial in state.ranked()[:3]]
    prepared = prepare(config)
    means = [statistics.fmean(scores(prepared, each, REPEATS)) for each in again]
    return again[means.index(max(means))], max(means)


def scores(prepared: Prepared, config: Config, fits: int) -> list[float]:
    """The validation accuracy of a config over fits, the first with its own seed."""
    forget()
    return fit_all(prepared, config, repeats=fits).scores


def compare(oracle: str, way: str, seed: int, fits: int, fresh: int) -> dict[str, Any]:
    """One search, and what it chose over fresh seeds."""
    with tempfile.TemporaryDirectory() as folder:
        chosen, said = search(oracle, way, seed, fits, folder)
        anew = replace(chosen, training=replace(chosen.training, seed=FRESH))
        found = scores(prepare(chosen), anew, fresh)
    values = {"l2": chosen.head.l2, "widths": list(chosen.head.dense_widths), "dropout": chosen.head.dropout}
    values["rate"] = chosen.training.learning_rate
    return {"oracle": oracle, "way": way, "seed": seed, "said": said, "scores": found, "values": values}


def table(runs: list[dict[str, Any]]) -> str:
    """By oracle and way, over seeds: what the sweep said of its choice, and what that came to, as Markdown."""
    lines = ["| oracle | way | seeds | said | fresh seeds | std | min | max |", "| --- | --- |" + " ---: |" * 6]
    for oracle, way in sorted({(run["oracle"], run["way"]) for run in runs}, key=lambda it: (it[0], WAYS.index(it[1]))):
        own = [run for run in runs if (run["oracle"], run["way"]) == (oracle, way)]
        means = [statistics.fmean(run["scores"]) for run in own]
        over = spread(means) if len(means) > 1 else Spread(1, means[0], 0.0, means[0], means[0])
        said = statistics.fmean(run["said"] for run in own)
        ends = f"{over.std:.4f} | {min(means):.4f} | {max(means):.4f}"
        lines.append(f"| {oracle} | {way} | {len(own)} | {said:.4f} | {over.mean:.4f} | {ends} |")
    noise = statistics.fmean(statistics.stdev(run["scores"]) for run in runs)
    return "\n".join([*lines, "", f"One config over seeds: a standard deviation of {noise:.4f} on average."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracles", nargs="+", default=["random", "tpe"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--fits", type=int, default=24, help="of a sweep, those of the best three again among them")
    parser.add_argument("--fresh", type=int, default=10, help="fits of what was chosen")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    setting = {"base": BASE, "space": SPACE, "fits": given.fits, "fresh": given.fresh}
    results: dict[str, Any] = {"setting": setting, "runs": []}
    if given.json and given.json.exists():
        results = json.loads(given.json.read_text())
        if results["setting"] != setting:
            raise SystemExit(f"{given.json}: of another space, data or budget; give another --json")
    done = {(run["oracle"], run["way"], run["seed"]) for run in results["runs"]}
    for seed in range(given.seeds):
        for oracle, way in ((oracle, way) for oracle in given.oracles for way in WAYS):
            if (oracle, way, seed) in done:
                continue
            results["runs"].append(run := compare(oracle, way, seed, given.fits, given.fresh))
            mean = statistics.fmean(run["scores"])
            print(f"{oracle}, {way}, seed {seed}: said {run['said']:.4f}, fresh seeds {mean:.4f}", flush=True)
            if given.json:
                write_json(given.json, results)
    print(table(results["runs"]))


if __name__ == "__main__":
    main()
