"""How fast features are computed and read, beside Keras' `predict`, in one run.

    python benchmarks/bench_features.py [--images 256] [--rounds 5] [--size 139] [--json out.json]

The forms take turns, round by round, so that what else the machine does falls on both; a figure is the median round.
Weights are random: they do not change the speed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fer_experiments.backbones.networks import load_backbone
from fer_experiments.config import BackboneConfig
from fer_experiments.features.cache import open_features
from fer_experiments.features.engine import check_parity, compile_forward
from fer_experiments.features.shards import write_manifest, write_shard


def machine() -> dict[str, Any]:
    import keras

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        cpu = next((line.split(":")[1].strip() for line in info.open() if line.startswith("model name")), cpu)
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    versions = f"Python {platform.python_version()}, Keras {keras.__version__}, {keras.config.backend()}"
    return {"cpu": cpu, "cores": os.cpu_count(), "load": load, "versions": versions}


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def forward_rates(architecture: str, size: int, images: int, rounds: int) -> dict[str, list[float]]:
    """Images/s, round by round, of `predict` (batches of 32) and of the compiled forward by precision (64)."""
    cfg = BackboneConfig(
        name=architecture, kind="application", architecture=architecture, weights=None, input_size=size
    )
    backbone = load_backbone(cfg, (48, 48))
    pixels = np.random.default_rng(0).integers(0, 256, (images, 48, 48), dtype=np.uint8)
    forms: dict[str, Callable[[], object]] = {
        "predict": lambda: backbone.model.predict(pixels, batch_size=32, verbose=0)
    }
    for precision in ("float32", "bfloat16"):
        forward = compile_forward(backbone, 64, precision)
        check_parity(backbone, forward, pixels[:8], precision)
        forms[precision] = lambda forward=forward: [forward(pixels[i : i + 64]) for i in range(0, images, 64)]  # type: ignore[misc]
    for form in forms.values():
        form()
    rates: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(rounds):
        for name in list(forms)[:: 1 if number % 2 else -1]:
            rates[name].append(images / seconds(forms[name]))
    return rates


def gather_rates(rounds: int, count: int = 4096, batch: int = 128) -> dict[str, float]:
    """Median GB/s of random batches of 8x8x896 float16 from shards, and of copying as much in memory."""
    shape, size = (8, 8, 896), 1024
    with tempfile.TemporaryDirectory() as folder:
        view = Path(folder) / "original"
        view.mkdir()
        starts = list(range(0, count, size))
        for start in starts:
            write_shard(view, start, {"map": np.full((size, *shape), start, "float16")})
        content = {"fingerprint": "", "dtype": "float16", "count": count, "shard_size": size}
        write_manifest(view, content, starts)
        features = open_features(Path(folder), ("original",))
        assert features is not None
        random = np.random.default_rng(0)
        source = np.zeros((batch, *shape), "float16")
        rates: dict[str, list[float]] = {"take": [], "copy": []}
        for _ in range(rounds * 20):
            rows = random.integers(0, count, batch)
            rates["take"].append(source.nbytes / 1e9 / seconds(lambda rows=rows: features.take(rows)))  # type: ignore[misc]
            rates["copy"].append(source.nbytes / 1e9 / seconds(source.copy))
    return {name: statistics.median(values) for name, values in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="InceptionResNetV2")
    parser.add_argument("--size", type=int, default=139)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "images": options.images, "rounds": options.rounds}
    print(" · ".join(str(value) for value in result["machine"].values()))
    result["forward"] = forward_rates(options.architecture, options.size, options.images, options.rounds)
    result["gather"] = gather_rates(options.rounds)
    rates = result["forward"]
    print(f"{options.architecture} at {options.size}, {options.images} images, median of {options.rounds} rounds")
    for name, values in rates.items():
        ratio = statistics.median(ours / keras for ours, keras in zip(values, rates["predict"], strict=True))
        span = f"({min(values):.1f} to {max(values):.1f})"
        print(f"  {name:<10}{statistics.median(values):8.1f} images/s  {span:18} {ratio:.2f} x predict")
    print("128 random rows of 8x8x896 float16")
    for name, rate in result["gather"].items():
        print(f"  {name:<10}{rate:8.1f} GB/s")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
