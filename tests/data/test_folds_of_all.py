"""data.fold=all: the splits of every fold in one dataset, and the test as sealed as ever."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from in_memory import blobs

from fer_experiments.config import DataConfig, HeadConfig, TrainingConfig
from fer_experiments.config.compose import compose
from fer_experiments.data import Dataset, describe, load_dataset, open_test_split
from fer_experiments.errors import UserError
from fer_experiments.experiment.pretrain import run_pretrain
from fer_experiments.training.fit import fit_head


@pytest.fixture(scope="module")
def folded() -> DataConfig:
    return compose(["data=demo", "data.demo_size=300", "data.split=kfold", "data.folds=3", "data.fold=all"]).data


def ids(dataset: Dataset, part: str) -> list[str]:
    return sorted(dataset.ids[getattr(dataset, part)])


@pytest.mark.parametrize("more", [{}, {"balance": "undersample"}, {"balance": "class_weight", "limit": 50}])
def test_each_part_is_the_split_of_its_fold(folded: DataConfig, more: dict[str, Any]):
    every = load_dataset(replace(folded, **more))
    assert len(every.parts()) == 3
    for fold, part in enumerate(every.parts()):
        alone = load_dataset(replace(folded, fold=fold, **more))
        assert ids(part, "train") == ids(alone, "train") and ids(part, "val") == ids(alone, "val")
        assert part.class_weight == alone.class_weight and part.parts() == [part]


def test_every_image_is_validated_once_and_none_of_the_test_is_there(folded: DataConfig):
    every = load_dataset(folded)
    scored = np.concatenate([part.val for part in every.parts()])
    assert sorted(scored) == list(range(len(every.images)))
    for part in every.parts():
        assert not set(part.train) & set(part.val)
    sealed = open_test_split(folded)
    assert set(sealed.ids) == set(open_test_split(replace(folded, fold=1)).ids)
    assert not set(sealed.ids) & set(every.ids) and len(sealed.ids) + len(every.ids) == every.cleaning["in_classes"]


def test_the_fingerprint_is_that_of_all_folds(folded: DataConfig):
    own = load_dataset(folded).fingerprint
    assert own == load_dataset(folded).fingerprint == open_test_split(folded).fingerprint
    others = [replace(folded, fold=0), replace(folded, folds=4), replace(folded, seed=1)]
    assert own not in [load_dataset(other).fingerprint for other in others]


def test_the_counts_say_what_they_are_of(folded: DataConfig):
    assert "data.fold=all: train and val are those of 3 fits" in describe(load_dataset(folded))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.fold=all"], r"data\.fold=all: data\.split=official has no folds; say data\.split=kfold"),
        (["data.split=kfold", "data.fold=every"], r"data\.fold=every: must be in 0\.\.4 \(data\.folds=5\), or all"),
        (["data.split=kfold", "data.fold=1.5"], r"data\.fold=1\.5: must be in 0\.\.4"),
        (["data.split=kfold", "data.fold=-1"], r"data\.fold=-1: must not be negative"),
    ],
)
def test_folds_that_are_not_there_are_refused_in_a_line(overrides: list[str], said: str):
    with pytest.raises(UserError, match=said):
        compose(["data=demo", *overrides])


def test_nothing_trains_on_all_folds_at_once():
    features, dataset = blobs(2, n=30)
    folds = ((dataset.train, dataset.val), (dataset.val, dataset.train))
    with pytest.raises(UserError, match=r"data\.fold=all: a fit is of one fold"):
        fit_head(features, replace(dataset, folds=folds), HeadConfig(name="linear"), TrainingConfig())
    with pytest.raises(UserError, match=r"data\.fold=all: a pretraining is of one network"):
        run_pretrain(compose(["data=demo", "pretrain=pocket", "data.split=kfold", "data.fold=all"]))
