"""What `training.precision=auto` comes to."""

from __future__ import annotations

from dataclasses import replace

import keras
import pytest
from in_memory import blobs

from fer_experiments.config import HeadConfig, TrainingConfig
from fer_experiments.training import precision
from fer_experiments.training.fit import fit_head

PAPER, CONV = (HeadConfig(name=name, spatial=True, filters=[4], dense_widths=[4]) for name in ("paper", "conv"))
AUTO = TrainingConfig(epochs=1)


@pytest.mark.parametrize(
    ("backend", "features", "gpus", "fast"),
    [
        ("tensorflow", ["amx_bf16"], [], True),
        ("tensorflow", ["avx512_bf16"], [], False),
        ("tensorflow", ["amx_bf16"], [{"name": "a GPU"}], False),
        ("jax", ["amx_bf16"], [], False),
    ],
)
def test_products_are_in_bfloat16_where_that_was_measured(
    backend: str, features: list[str], gpus: list[dict[str, str]], fast: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    monkeypatch.setattr(precision, "hardware", lambda: {"cpu_features": features})
    monkeypatch.setattr(precision, "gpus", lambda: gpus)
    assert precision.computes_products_in_bfloat16() == fast


def test_heads_that_bear_it_are_fitted_in_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precision, "computes_products_in_bfloat16", lambda: True)
    tuned = replace(AUTO, unfreeze="all")
    cases = (AUTO, PAPER, "mixed_bfloat16"), (AUTO, CONV, "float32"), (tuned, PAPER, "float32")
    for training, head, expected in cases:
        first, other = precision.decisions(training, head)
        assert (first.precision, {first.precision, other.precision}) == (expected, {"float32", "mixed_bfloat16"})
    asked = replace(AUTO, precision="float32")
    assert precision.decisions(asked, PAPER) == [asked]


def test_a_fit_decides_for_itself(monkeypatch: pytest.MonkeyPatch):
    features, dataset = blobs(2, n=60)
    for fast, expected in (True, "bfloat16"), (False, "float32"):
        monkeypatch.setattr(precision, "computes_products_in_bfloat16", lambda fast=fast: fast)
        model = fit_head(features, dataset, PAPER, AUTO).model
        convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
        assert {layer.compute_dtype for layer in convolutions} == {expected}
