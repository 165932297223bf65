"""What near twins in Training are worth on the test split: accuracy on test images with and without one.

    python benchmarks/near_twins.py <mlruns folder> [<another>] [--data data/fer2013.zip] [--cache cache]
    python benchmarks/near_twins.py <pocket's weights>.npz [<others>.npz]

Of a folder: reads the test probabilities that the last promotion in it has recorded, row by row with their labels; no
test split is opened. Weights as `fer pretrain` writes them tell the seven emotions of the test split, which is opened
for it, and recorded as opened by a run in mlruns/. Which of the images have a near twin in Training is looked up
(`data.near_twins`). Intervals are Wilson's, 95 %. Two models are compared on each part by McNemar's exact test.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from fer_experiments import tracking
from fer_experiments.config import Config, PathsConfig, cache_dir
from fer_experiments.config.commands import override
from fer_experiments.config.compose import compose
from fer_experiments.data import load_dataset
from fer_experiments.data.cleaning import canonical_order, identical_groups
from fer_experiments.data.near_twins import find_twins
from fer_experiments.data.readers import find_fer2013, read_faces
from fer_experiments.evaluation.bootstrap import mcnemar
from fer_experiments.experiment.record import open_sealed_test
from fer_experiments.terminal import table
from fer_experiments.tracking.store import client_of

PROBABILITIES = "metrics/test_probabilities.csv"  # of a promotion's run


def with_twin(data: Path, cache: Path) -> pd.Series:
    """Whether an image of PrivateTest has a near twin in Training, by its id."""
    faces, digests = canonical_order(read_faces(data))
    twins = find_twins(faces.images, digests, identical_groups(digests), cache)
    near = np.isin(twins.groups, twins.groups[faces.usage == "Training"])
    test = faces.usage == "PrivateTest"
    return pd.Series(near[test], index=faces.ids[test].astype(str))


def recorded(mlruns: Path) -> tuple[str, pd.DataFrame]:
    """What the last promotion in a folder says of itself, and its test probabilities: id, label, probability_*."""
    store = tracking.connect_existing(Config(paths=PathsConfig(mlruns=str(mlruns))))
    client = client_of(store)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    for run in client.search_runs(ids, "tags.`fer.kind` = 'promotion'", order_by=["start_time DESC"]):
        text = tracking.artifact_text(store, run.info.run_id, PROBABILITIES)
        if text is not None:
            params = run.data.params
            name = f"{params['backbone.name']}-{params['head.name']}, data.clean={params['data.clean']}"
            return name, pd.read_csv(io.StringIO(text), dtype={"id": str}).set_index("id")
    raise SystemExit(f"{mlruns}: no promotion that opened the test split")


def told_by(weights: Path, data: Path, cache: Path) -> tuple[str, pd.DataFrame]:
    """The same of pocket's own seven emotions, with these weights."""
    from fer_experiments.backbones.pocket import load_classifier
    from fer_experiments.training.pretraining import predict

    places = [override("data.path", str(data.resolve())), override("paths.cache", str(cache.resolve()))]
    config = compose(["data=fer2013_seven", *places])
    dataset = load_dataset(config.data, cache=cache_dir(config))
    store = tracking.connect(config)
    with tracking.start_run(store, "train", f"test split by {weights.name}", system_metrics=False) as run:
        test = open_sealed_test(run, config, dataset)
        probabilities = predict(load_classifier(weights), test.images)
    columns = {f"probability_{name}": probabilities[:, i] for i, name in enumerate(test.classes)}
    return weights.name, pd.DataFrame({"label": test.labels, **columns}, index=test.ids.astype(str))


def share(right: np.ndarray) -> str:
    """An accuracy with its interval."""
    low, high = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return f"{right.mean():.4f} ({low:.4f} to {high:.4f})"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, default=find_fer2013())
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    options = parser.parse_args()
    near = with_twin(options.data, options.cache)
    models = [
        told_by(path, options.data, options.cache) if path.suffix == ".npz" else recorded(path.resolve())
        for path in options.models
    ]
    first = models[0][1]
    parts = {"all": np.ones(len(first), bool), "with a near twin in Training": near[first.index].to_numpy()}
    parts["without"] = ~parts["with a near twin in Training"]
    rows = [["model", *(f"{name} ({part.sum():,})" for name, part in parts.items())]]
    probabilities = []
    for name, frame in models:
        columns = [column for column in first if column.startswith("probability_")]
        given = frame.loc[first.index, columns].to_numpy()
        right = given.argmax(axis=1) == first["label"].to_numpy()
        rows.append([name, *(share(right[part]) for part in parts.values())])
        probabilities.append(given)
    print(table(rows))
    if len(models) == 2:
        for name, part in parts.items():
            test = mcnemar(first["label"].to_numpy()[part], probabilities[0][part], probabilities[1][part])
            print(f"{name}: {test}")


if __name__ == "__main__":
    main()
