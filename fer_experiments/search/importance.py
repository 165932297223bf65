"""Which hyperparameters mattered in a sweep."""

from __future__ import annotations

import numpy as np
import pandas as pd

FEWEST_TRIALS = 4
FORESTS, TREES, SHUFFLES = 10, 50, 5


def importances(trials: pd.DataFrame, objective: str) -> pd.DataFrame:
    """The share of each hyperparameter in what a random forest believes moves the objective, the largest first.

    A forest is fitted to resampled trials; shuffling a column then changes its predictions, and the mean square of that
    change, divided by the sum over all columns, is the column's importance (after Breiman 2001, section 10). Repeated
    with FORESTS seeds.

    Args:
        trials: a row a trial: the objective (nan where the trial failed) and a column a hyperparameter, of any type.
        objective: the name of its column.

    Returns:
        Columns name, importance (sums to 1, all 0 when nothing mattered) and std (over the forests); empty with fewer
        than FEWEST_TRIALS finished trials.
    """
    from sklearn.ensemble import RandomForestRegressor

    finished = trials[pd.to_numeric(trials[objective], errors="coerce").notna()]
    names = [str(c) for c in trials if c != objective]
    if len(finished) < FEWEST_TRIALS or not names:
        return pd.DataFrame({"name": [], "importance": [], "std": []})
    x = np.column_stack([_as_numbers(finished[name]) for name in names])
    y = finished[objective].to_numpy("float64")
    shares = []
    for seed in range(FORESTS):
        random = np.random.default_rng(seed)
        rows = random.integers(len(x), size=len(x))
        forest = RandomForestRegressor(TREES, random_state=seed).fit(x[rows], y[rows])
        shuffled = np.repeat(x[None, None], SHUFFLES, axis=1).repeat(len(names), axis=0)
        for column in range(len(names)):
            for repeat in range(SHUFFLES):
                shuffled[column, repeat, :, column] = random.permutation(x[:, column])
        predicted = forest.predict(shuffled.reshape(-1, len(names))).reshape(len(names), -1, len(x))
        change = np.square(predicted - forest.predict(x)).mean(axis=(1, 2))
        shares.append(change / change.sum() if change.sum() > 0 else change)
    table = pd.DataFrame({"name": names, "importance": np.mean(shares, axis=0), "std": np.std(shares, axis=0)})
    return table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def _as_numbers(values: pd.Series) -> np.ndarray:
    """Numbers as they are, one that is absent below them; anything else (text, lists) as the rank of its text."""
    if pd.api.types.is_numeric_dtype(values) and values.notna().any():
        return values.fillna(values.min() - 1).to_numpy("float64")
    return np.unique(values.map(str).to_numpy(str), return_inverse=True)[1].astype("float64")
