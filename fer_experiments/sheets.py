"""What `fer data` shows and every run records of its data: the table of counts, and a sheet of sample faces."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fer_experiments import plots
from fer_experiments.config import Config, cache_dir
from fer_experiments.data import Dataset, describe, load_dataset


def counts_table(dataset: Dataset) -> pd.DataFrame:
    """A row a split, a column a class."""
    return pd.DataFrame(dataset.counts).T.rename_axis("split").reset_index()


def sample_faces(dataset: Dataset, per_class: int = 8) -> Figure:
    """A sheet of training faces, a row a class, spread over the split."""
    chosen: list[int] = []
    for label in range(len(dataset.classes)):
        rows = dataset.train[dataset.labels[dataset.train] == label]
        chosen += rows[np.linspace(0, len(rows) - 1, min(per_class, len(rows))).astype(int)].tolist()
    titles = [_title(dataset, row) for row in chosen]
    return plots.face_sheet(dataset.images[chosen], titles, columns=per_class)


def show_data(config: Config) -> None:
    """Prints the counts, what cleaning removed and why, and the fingerprint; writes the sheet under paths.cache."""
    dataset = load_dataset(config.data, smoke=config.training.smoke)
    print(describe(dataset))
    sheet = cache_dir(config) / "data" / f"{config.data.task}-{dataset.fingerprint[:8]}.png"
    sheet.parent.mkdir(parents=True, exist_ok=True)
    sample_faces(dataset).savefig(sheet)
    print(f"sample faces: {sheet}")


def _title(dataset: Dataset, row: int) -> str:
    name, emotion = dataset.classes[dataset.labels[row]], str(dataset.emotions[row])
    return name if name == emotion else f"{name} ({emotion})"
