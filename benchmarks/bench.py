"""Measures this machine, and sets each figure beside its target: the benchmarks one after the other, then one table.

    [FER2013=<zip>] python benchmarks/bench.py [--only heads,start] [--table]

Each leaves its JSON in benchmarks/results; --table prints the table of what is there. Ratios are of two things measured
in turns in one run, and hold elsewhere; seconds are this machine's.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fer_experiments.environment import hardware

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
BENCHMARKS = {
    "features": ["bench_features.py"],
    "heads": ["bench_heads.py"],
    "trial": ["flat_cost.py", "--trials", "60"],
    "start": ["bench_start.py"],
    "naive": ["naive_sweep.py"],
}
AMX = "amx_bf16" in hardware()["cpu_features"]


def _over_predict(form: str) -> Callable[[Any], float]:
    return lambda found: statistics.median(
        ours / keras for ours, keras in zip(found["forward"][form], found["forward"]["predict"], strict=True)
    )


def _over_keras(case: str) -> Callable[[Any], float]:
    return lambda found: found["images_per_s"][case]["ours"] / found["images_per_s"][case]["keras"]


def _seconds(command: str) -> Callable[[Any], float]:
    return lambda found: found["seconds"][command]["wall_s"]


# What is measured, its benchmark, how it is read, and its target: at least of a ratio, at most of seconds.
FIGURES: list[tuple[str, str, Callable[[Any], float], float, str]] = [
    ("features, float32, beside Keras' predict", "features", _over_predict("openvino float32"), 1.4, "x"),
    ("features, bfloat16, beside Keras' predict", "features", _over_predict("openvino bfloat16"), 7 if AMX else 3, "x"),
    ("zip to stored features, beside OpenVINO alone", "features",
     lambda found: found["whole"]["rate"] / found["whole"]["alone"], 0.9, "x"),
    ("head, pooled, batch 32, beside Keras' fit", "heads", _over_keras("pooled, batch 32"), 8, "x"),
    ("head, pooled, batch 128", "heads", _over_keras("pooled, batch 128"), 5, "x"),
    ("head, paper", "heads", _over_keras("paper"), 1.6, "x"),
    ("head, paper, bfloat16", "heads", _over_keras("paper, bfloat16"), 3.5 if AMX else 1.6, "x"),
    ("head, conv", "heads", _over_keras("conv on 8x8"), 1.6, "x"),
    ("head, conv, bfloat16", "heads", _over_keras("conv on 8x8, bfloat16"), 3.5 if AMX else 1.6, "x"),
    ("a sweep as usually written, beside ours", "naive", lambda found: found["extrapolated"]["ratio"], 100, "x"),
    ("FER2013's zip decoded", "features", lambda found: found["whole"]["decoding_s"], 6, "s"),
    ("and mapped from then on", "features", lambda found: found["whole"]["mapping_s"], 0.3, "s"),
    ("a trial outside its fit", "trial", lambda found: statistics.median(found["outside_s"]), 0.35, "s"),
    ("fer --help", "start", _seconds("fer --help"), 0.3, "s"),
    ("a mistake in an override", "start", _seconds("a mistake in an override"), 1, "s"),
    ("fer sweep, to its first fit", "start", _seconds("fer sweep, to its first fit"), 10, "s"),
    ("fer sweep of FER2013, to its first fit", "start", _seconds("fer sweep of FER2013, to its first fit"), 10, "s"),
    ("fer predict", "start", _seconds("fer predict"), 6, "s"),
]  # fmt: skip


def table() -> str:
    """Every figure beside its target, as far as it was measured."""
    machine = hardware()
    lines = [f"{machine['cores']} cores, {machine['cpu']}", f"{'':50}{'here':>9}{'target':>10}"]
    for name, benchmark, read, target, unit in FIGURES:
        path = RESULTS / f"{benchmark}.json"
        try:
            value = read(json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, KeyError):
            lines.append(f"{name:50}{'not measured':>19}")
            continue
        held = value >= target if unit == "x" else value <= target
        lines.append(f"{name:50}{value:8.2f}{unit}{target:9g}{unit}{'' if held else '   falls short'}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(BENCHMARKS), help="of " + ", ".join(BENCHMARKS))
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    RESULTS.mkdir(exist_ok=True)
    for name in () if given.table else given.only.split(","):
        if name == "naive" and importlib.util.find_spec("tensorboard") is None:
            print("naive: KerasTuner takes no callbacks without tensorboard: left out (pip install tensorboard)")
            continue
        script, *arguments = BENCHMARKS[name]
        print(f"\n{name}", flush=True)
        subprocess.run([sys.executable, HERE / script, *arguments, "--json", RESULTS / f"{name}.json"], check=True)
    print(f"\n{table()}")


if __name__ == "__main__":
    main()
