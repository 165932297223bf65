"""How fast features are computed, stored and read, beside Keras' `predict` and OpenVINO alone, in one run.

    [FER2013=<zip>] python benchmarks/bench_features.py [--images 256] [--rounds 5] [--size 139] [--whole 8192]
        [--json out.json]

The forms take turns, round by round, so that what else the machine does falls on all; a figure is the median round.
"whole way" is from FER2013's file to stored features: its share of decoding, the forward pass, and writing. Weights are
random: they do not change the speed.
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

from fer_experiments.backbones.networks import Backbone, load_backbone
from fer_experiments.config import BackboneConfig, FeaturesConfig
from fer_experiments.config.compose import compose
from fer_experiments.data import load_dataset
from fer_experiments.data.readers import find_fer2013
from fer_experiments.features.cache import extract_features, open_features
from fer_experiments.features.engine import ENGINES, check_parity, compile_forward, decisions
from fer_experiments.features.engines.openvino import PRECISION
from fer_experiments.features.engines.tensorflow import constant_function
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


def silent(line: str) -> None:
    pass


def backbone_of(architecture: str, size: int) -> BackboneConfig:
    return BackboneConfig(
        name=architecture, kind="application", architecture=architecture, weights=None, input_size=size
    )


def forms_of(backbone: Backbone, pixels: np.ndarray) -> dict[str, Callable[[], object]]:
    """`predict` with batches of 32, every engine with its precisions, and OpenVINO without what is around it."""
    import keras

    forms: dict[str, Callable[[], object]] = {
        "predict": lambda: backbone.model.predict(pixels, batch_size=32, verbose=0)
    }
    for engine, (precisions, needed) in ENGINES.items():
        for precision in precisions if keras.config.backend() == needed else ():
            forward = compile_forward(backbone, 64, engine, precision)
            check_parity(backbone, forward, pixels[:8], precision)
            forms[f"{engine} {precision}"] = lambda forward=forward: list(forward(pixels))  # type: ignore[misc]
    if keras.config.backend() == "tensorflow":
        for precision in ENGINES["openvino"][0]:
            forms[f"openvino alone {precision}"] = openvino_alone(backbone, pixels, precision)
    for form in forms.values():
        form()
    return forms


def openvino_alone(backbone: Backbone, pixels: np.ndarray, precision: str) -> Callable[[], None]:
    """Its own queue on batches of 32 that are there already, whose results nobody takes."""
    import openvino

    model = openvino.convert_model(constant_function(backbone.model, 32))
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": PRECISION[precision]}
    queue = openvino.AsyncInferQueue(openvino.compile_model(model, "CPU", hints))
    batches = [pixels[first : first + 32] for first in range(0, len(pixels) // 32 * 32, 32)]

    def run() -> None:
        for batch in batches:
            queue.start_async([batch])
        queue.wait_all()

    return run


def forward_rates(forms: dict[str, Callable[[], object]], images: int, rounds: int) -> dict[str, list[float]]:
    """Images/s, round by round."""
    rates: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(rounds):
        for name in list(forms)[:: 1 if number % 2 else -1]:
            rates[name].append(images / seconds(forms[name]))
    return rates


def whole_way(architecture: str, size: int, count: int, alone: Callable[[], object], images: int) -> dict[str, Any]:
    """Images/s from FER2013's file to stored features as `auto` runs it, and of OpenVINO alone before and after."""
    with tempfile.TemporaryDirectory() as folder:
        config = compose(["data=fer2013_seven", "data.clean=none", f"paths.cache={folder}"]).data
        decoding = seconds(lambda: load_dataset(config, cache=Path(folder)))
        mapping = seconds(lambda: load_dataset(config, cache=Path(folder)))
        dataset = load_dataset(config, cache=Path(folder))
        faces = dataset.images[:count]
        rates = [images / seconds(alone)]
        cfg, features = backbone_of(architecture, size), FeaturesConfig()
        extract_features(faces[:32], "first", cfg, features, Path(folder), echo=silent)  # builds the network
        extracting = seconds(lambda: extract_features(faces, "all", cfg, features, Path(folder), echo=silent))
        rates.append(images / seconds(alone))
    share = decoding * count / len(dataset.images)
    return {
        "decoding_s": decoding,
        "mapping_s": mapping,
        "images": count,
        "rate": count / (share + extracting),
        "alone": statistics.mean(rates),
    }


def gather_rates(rounds: int, count: int = 4096, batch: int = 128) -> dict[str, float]:
    """Median GB/s of random batches of 8x8x896 float16 from shards, and of copying as much in memory."""
    shape, size = (8, 8, 896), 1024
    with tempfile.TemporaryDirectory() as folder:
        view = Path(folder, "0" * 16, "original")
        view.mkdir(parents=True)
        starts = list(range(0, count, size))
        for start in starts:
            write_shard(view, start, {"map": np.full((size, *shape), start, "float16")})
        content = {"fingerprint": "0" * 16, "dtype": "float16", "count": count, "shard_size": size}
        write_manifest(view, content, starts)
        features = open_features(view.parent, ("original",))
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
    parser.add_argument("--whole", type=int, default=8192, help="images of the whole way; 0: not measured")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "images": options.images, "rounds": options.rounds}
    print(" · ".join(str(value) for value in result["machine"].values()))
    backbone = load_backbone(backbone_of(options.architecture, options.size), (48, 48))
    pixels = np.random.default_rng(0).integers(0, 256, (options.images, 48, 48), dtype=np.uint8)
    forms = forms_of(backbone, pixels)
    rates = result["forward"] = forward_rates(forms, options.images, options.rounds)
    print(f"{options.architecture} at {options.size}, {options.images} images, median of {options.rounds} rounds")
    for name, values in rates.items():
        ratio = statistics.median(ours / keras for ours, keras in zip(values, rates["predict"], strict=True))
        span = f"({min(values):.1f} to {max(values):.1f})"
        print(f"  {ratio:.2f} x predict  {name:<26}{statistics.median(values):8.1f} images/s  {span}")
    auto = decisions(FeaturesConfig())[0]
    if options.whole and f"openvino alone {auto.precision}" in forms and find_fer2013():
        alone = forms[f"openvino alone {auto.precision}"]
        way = result["whole"] = whole_way(options.architecture, options.size, options.whole, alone, options.images)
        print(f"whole way, {way['images']:,} images ({auto.engine}, {auto.precision})")
        print(
            f"  {way['rate'] / way['alone']:.2f} x OpenVINO alone  {way['rate']:.1f} beside {way['alone']:.1f} images/s"
        )
        print(f"  FER2013 decoded in {way['decoding_s']:.1f} s, mapped in {way['mapping_s']:.2f} s")
    result["gather"] = gather_rates(options.rounds)
    print("128 random rows of 8x8x896 float16")
    for name, rate in result["gather"].items():
        print(f"  {name:<10}{rate:8.1f} GB/s")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
