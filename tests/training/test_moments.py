"""What a head standardises its features by."""

from __future__ import annotations

import numpy as np
import pytest
from in_memory import blobs

from fer_experiments.features.cache import Unstored
from fer_experiments.training.fit import feature_moments


def test_moments_are_those_of_the_rows_alone():
    features, dataset = blobs(2)
    (mean, variance) = feature_moments(features, dataset.train, chunk=7)[0]
    rows = features.arrays["original"][0][dataset.train].astype("float64").reshape(-1, 6)
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(variance, rows.var(axis=0), rtol=1e-3)


def test_moments_of_channels_that_hardly_vary_are_exact():
    rows = np.random.default_rng(0).normal(1000, 0.01, (5000, 3)).astype("float32")
    (_, variance) = feature_moments(Unstored({"original": [rows]}), np.arange(5000))[0]
    np.testing.assert_allclose(variance, rows.astype("float64").var(axis=0), rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_channel_that_is_constant_over_the_rows_is_only_centred(dtype: str):
    features = np.random.default_rng(0).normal(size=(500, 5)).astype(dtype)
    features[:400, :4] = [0, 3.7, -1000, 1e-4]  # and not so in the other rows
    (mean, variance) = feature_moments(Unstored({"original": [features]}), np.arange(400), chunk=64)[0]
    np.testing.assert_allclose(mean[:4], features[0, :4], rtol=1e-6)
    assert variance[:4].tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(variance[4], features[:400, 4].astype("float64").var(), rtol=1e-4)
