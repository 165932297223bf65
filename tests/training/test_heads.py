"""Heads by name."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from fer_experiments.config import Config, HeadConfig, PathsConfig
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.experiment.prepare import Preparations
from fer_experiments.training.heads import HEADS, build_head

SPATIAL = (3, 3, 8)


def config(name: str, **changes: object) -> HeadConfig:
    given = {"dense_widths": [8, 4], "filters": [6], "l2": 1e-3, "dropout": 0.5, **changes}
    return HeadConfig(name=name, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(HEADS))
@pytest.mark.parametrize(("classes", "units"), [(2, 1), (7, 7)])
def test_every_head_gives_probabilities(name: str, classes: int, units: int):
    out = build_head(config(name), [SPATIAL], classes)(np.random.default_rng(0).normal(size=(5, *SPATIAL)))
    values = keras.ops.convert_to_numpy(out)
    assert values.shape == (5, units) and (values >= 0).all() and (values <= 1).all()
    if classes > 2:
        np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", list(HEADS))
def test_every_head_takes_several_cut_layers(name: str):
    keras.utils.set_random_seed(0)
    model = build_head(config(name), [SPATIAL, (5, 5, 4)], 2)
    random = np.random.default_rng(0)
    features, others = ([random.normal(size=(20, *shape)) for shape in (SPATIAL, (5, 5, 4))] for _ in range(2))
    found = keras.ops.convert_to_numpy(model(features))
    assert found.shape == (20, 1)
    for given in ([others[0], features[1]], [features[0], others[1]]):
        assert not np.allclose(keras.ops.convert_to_numpy(model(given)), found), "a layer counts for nothing"


@pytest.mark.parametrize("name", ["pooled", "linear"])
def test_pooled_features_suit_heads_that_pool(name: str):
    assert build_head(config(name), [(16,)], 3)(np.zeros((2, 16))).shape == (2, 3)


@pytest.mark.parametrize("name", ["paper", "conv"])
def test_a_spatial_head_refuses_pooled_features(name: str):
    with pytest.raises(UserError, match=r"needs a spatial map: set backbone.pooling=none"):
        build_head(config(name), [(16,)], 2)
    with pytest.raises(UserError, match=r"needs a spatial map: set backbone.pooling=map"):
        build_head(config(name), [(17, 16)], 2)


def test_an_unknown_head_is_refused_with_the_choices():
    with pytest.raises(UserError, match=f"choose one of {', '.join(HEADS)}"):
        build_head(config("transformer"), [SPATIAL], 2)


def test_the_papers_head_is_the_papers():
    model = build_head(compose(["head=paper"]).head, [(3, 3, 1536)], 2)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["InputLayer", "Conv2D", "MaxPooling2D", "Flatten", "Dense", "Dropout", "Dense", "Dense"]
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert [d.units for d in dense] == [128, 64, 1]
    assert all(abs(float(d.kernel_regularizer.l2) - 1e-3) < 1e-9 for d in dense)


def test_normalize_standardises_with_the_given_moments():
    moments = [(np.full(8, 10, "float32"), np.full(8, 4, "float32"))]
    model = build_head(config("linear", normalize=True), [SPATIAL], 2, moments=moments)
    out = keras.ops.convert_to_numpy(model.get_layer("normalize_0")(np.full((1, *SPATIAL), 14.0)))
    np.testing.assert_allclose(out, 2.0, rtol=1e-5)


def test_no_penalty_without_l2():
    assert build_head(config("pooled", l2=0.0), [SPATIAL], 2).losses == []


def test_bfloat16_stays_inside_the_body():
    model = build_head(config("conv"), [SPATIAL], 2, precision="mixed_bfloat16")
    assert model.layers[1].compute_dtype == "bfloat16"
    assert model.output.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_a_head_of_which_there_is_a_yaml_alone_is_refused_before_any_image_is_forwarded(tmp_path: Path) -> None:
    config = Config(head=HeadConfig(name="mine"), paths=PathsConfig(cache=str(tmp_path)))
    with pytest.raises(UserError, match=r"head\.name=mine: no such head; choose one of paper, pooled, conv, linear"):
        Preparations().of(config)
    assert not list(tmp_path.iterdir())
