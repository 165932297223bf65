"""Whether features made in bfloat16, or heads fitted in it, come to something else: paired over seeds, on real faces.

    FER2013=<zip, csv or folder> python benchmarks/compare_precisions.py [--of training] [--limit 4000] [--seeds 5] \
        [--json out.json]

Each backbone and head is fitted with its features, or --of training itself, in float32 and in bfloat16, with the same
seeds. A line a pair: the mean validation accuracy of both, the mean difference over seeds with its 95 % interval (t),
and how many images each fit classifies otherwise, beside how many two seeds do on the same features.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from fer_experiments.config import Config
from fer_experiments.config.compose import compose
from fer_experiments.experiment.prepare import Prepared, prepare
from fer_experiments.training.fit import fit_head

SHARED = "../shared/weights"
BACKBONES = {
    "facenet": ["backbone=facenet", "backbone.layers=[Block8_6_add]"],
    "inception_v3": [
        "backbone=keras_file",
        "backbone.name=inception_v3",
        f"backbone.weights={SHARED}/inception_v3_imagenet_mixed8.keras",
    ],
}
PRECISIONS = {"features": ("float32", "bfloat16"), "training": ("float32", "mixed_bfloat16")}


def predicted(prepared: Prepared, config: Config) -> np.ndarray:
    """The class of each validation image after a fit."""
    moments = prepared.moments[0] if config.head.normalize else None
    fit = fit_head(prepared.features, prepared.dataset, config.head, config.training, moments=moments)
    classes: np.ndarray = fit.val_probabilities.argmax(axis=1)
    return classes


def otherwise(ones: list[np.ndarray], others: list[np.ndarray]) -> float:
    return float(np.mean([np.mean(one != other) for one, other in zip(ones, others, strict=True)]))


def compare(prepared: dict[str, Prepared], seeds: int) -> dict[str, Any]:
    said = {
        precision: [
            predicted(each, replace(each.config, training=replace(each.config.training, seed=seed)))
            for seed in range(seeds)
        ]
        for precision, each in prepared.items()
    }
    exact, rough = prepared
    dataset = prepared[exact].dataset
    labels = dataset.labels[dataset.val]
    accuracy = {precision: [float(np.mean(c == labels)) for c in classes] for precision, classes in said.items()}
    differences = np.subtract(accuracy[rough], accuracy[exact])
    half = float(stats.t.ppf(0.975, seeds - 1) * differences.std(ddof=1) / np.sqrt(seeds))
    return {
        "images": len(labels),
        "accuracy": accuracy,
        "difference": float(differences.mean()),
        "interval": [float(differences.mean()) - half, float(differences.mean()) + half],
        "otherwise": otherwise(said[exact], said[rough]),
        "between_seeds": float(np.mean([otherwise([a], [b]) for a, b in pairwise(said[exact])])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", choices=list(PRECISIONS), default="features")
    parser.add_argument("--limit", type=int, default=4000, help="images of each split")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", default="fer2013")
    parser.add_argument("--backbones", nargs="*", default=list(BACKBONES))
    parser.add_argument("--heads", nargs="*", default=["paper", "conv"])
    parser.add_argument("--cache", type=Path, help="where features are kept; a folder that goes away, if not given")
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*", help="as of `fer train`")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"paths.cache={options.cache or folder}", f"data={options.data}", f"data.limit={options.limit}"]
        for backbone in options.backbones:
            for head in options.heads:
                own = [*BACKBONES[backbone], f"head={head}", *paths, *options.overrides]
                prepared = {p: prepare(compose([*own, f"{options.of}.precision={p}"])) for p in PRECISIONS[options.of]}
                found = {"backbone": backbone, "head": head, **compare(prepared, options.seeds)}
                results.append(found)
                ours, theirs = (np.mean(found["accuracy"][p]) for p in PRECISIONS[options.of])
                low, high = found["interval"]
                print(
                    f"{backbone:<13} {head:<6} float32 {ours:.4f}  bfloat16 {theirs:.4f}  difference "
                    f"{found['difference']:+.4f} ({low:+.4f} to {high:+.4f}), {found['images']:,} images, "
                    f"{found['otherwise']:.1%} otherwise (between seeds {found['between_seeds']:.1%})",
                    flush=True,
                )
                if options.json:
                    options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
