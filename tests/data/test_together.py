"""Training and validation images together."""

from __future__ import annotations

import numpy as np
import pytest
from in_memory import make_dataset

from fer_experiments.config import DataConfig
from fer_experiments.data import load_dataset, train_and_val

FEW = {"name": "demo", "task": "demo", "source": "demo", "demo_size": 300}
CLASSES = {"happy": ["happy"], "other": ["angry", "sad"]}


def test_both_splits_are_trained_on_and_none_validates():
    dataset = make_dataset(np.arange(90) % 3, ("a", "b", "c"))
    both = train_and_val(dataset, DataConfig(name="x", task="x"))
    assert list(both.train) == list(range(90)) and len(both.val) == 0 and both.class_weight is None
    assert both.counts == {"train+val": {"a": 30, "b": 30, "c": 30}} and both.fingerprint == dataset.fingerprint


def test_classes_are_weighed_by_all_that_is_trained_on():
    labels = np.array([0, 0, 1] * 20 + [0, 0, 0] * 10)  # of the validation images a third of the first 60
    dataset = make_dataset(labels, ("a", "b"), {0: 9.0, 1: 9.0})
    both = train_and_val(dataset, DataConfig(name="x", task="x", balance="class_weight"))
    assert both.class_weight == {0: pytest.approx(90 / (2 * 70)), 1: pytest.approx(90 / (2 * 20))}


def test_what_is_drawn_to_have_as_many_of_each_class_has_so_with_the_validation_images():
    cfg = DataConfig(**FEW, classes=CLASSES, split="kfold", balance="undersample", per_class=5)
    dataset = load_dataset(cfg)
    val = np.bincount(dataset.labels[dataset.val])
    both = train_and_val(dataset, cfg)
    assert set(np.bincount(both.labels[both.train])) == {5 + val.min()}
    assert set(both.train) <= set(dataset.train) | set(dataset.val)
    np.testing.assert_array_equal(both.train, train_and_val(dataset, cfg).train)


def test_of_several_folds_it_is_every_image_of_any():
    dataset = load_dataset(DataConfig(**FEW, classes=CLASSES, split="kfold", fold="all"))
    both = train_and_val(dataset, DataConfig(**FEW, classes=CLASSES, split="kfold", fold="all"))
    assert len(both.train) == len(dataset.images) and both.parts() == [both]
    assert both.counts["test"] == dataset.counts["test"]
