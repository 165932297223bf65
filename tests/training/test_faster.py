"""What TensorFlow computes faster than Keras asks for it comes to the same."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from in_memory import blobs

from fer_experiments.config import HeadConfig, PixelsConfig, TrainingConfig
from fer_experiments.training import backends, faster
from fer_experiments.training.fit import fit_head
from fer_experiments.training.optimizer import build_optimizer
from fer_experiments.training.pixels import compile_for

SHAPES = [  # height, width, kernel, filters of what is convolved and of what comes of it
    (3, 3, (3, 3), 36, 4), (3, 3, (3, 3), 7, 4), (5, 4, (3, 3), 3, 6), (1, 1, (3, 3), 20, 2), (1, 2, (5, 5), 60, 2),
    (2, 5, (2, 4), 30, 3), (2, 5, (2, 4), 3, 3), (8, 8, (1, 1), 5, 3), (8, 8, (1, 1), 3, 5), (6, 6, (5, 3), 2, 2),
]  # fmt: skip


@pytest.mark.parametrize(("height", "width", "kernel", "inputs", "outputs"), SHAPES)
@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_a_convolution_as_products_is_one_both_ways(
    height: int, width: int, kernel: tuple[int, int], inputs: int, outputs: int, dtype: str, close: float
):
    random = np.random.default_rng(0)
    shapes = (4, height, width, inputs), (*kernel, inputs, outputs), (4, height, width, outputs)
    x, weights, given = (tf.cast(tf.constant(random.normal(size=shape)), dtype) for shape in shapes)
    found = []
    for convolve in (faster.convolution, lambda x, weights: tf.nn.conv2d(x, weights, 1, "SAME")):
        with tf.GradientTape() as tape:
            tape.watch([x, weights])
            y = convolve(x, weights)
        found.append([y, *tape.gradient(y, [x, weights], output_gradients=given)])
        x, weights, given = (tf.cast(array, "float32") for array in (x, weights, given))  # TensorFlow's is exact
    for ours, theirs in zip(*found, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == dtype
        theirs = theirs.numpy()
        np.testing.assert_allclose(tf.cast(ours, "float32"), theirs, atol=close * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("height", "width", "kernel", "strides"),
    [
        (9, 9, (3, 3), (2, 2)),
        (6, 8, (3, 3), (2, 2)),
        (5, 7, (1, 1), (2, 2)),
        (7, 6, (2, 3), (3, 1)),
        (3, 3, (3, 3), (2, 2)),
    ],
)
def test_a_strided_convolution_is_one_both_ways(
    height: int, width: int, kernel: tuple[int, int], strides: tuple[int, int]
):
    random = np.random.default_rng(0)
    x, weights = (tf.constant(random.normal(size=s), "float32") for s in ((4, height, width, 5), (*kernel, 5, 3)))
    found = []
    for convolve in (
        lambda x, weights: faster.strided(strides, x, weights),
        lambda x, weights: tf.nn.conv2d(x, weights, strides, "VALID"),
    ):
        with tf.GradientTape() as tape:
            tape.watch([x, weights])
            y = convolve(x, weights)
            loss = tf.reduce_sum(tf.sin(y))
        found.append([y, *tape.gradient(loss, [x, weights])])
    for ours, theirs in zip(*found, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["paper", "conv"])
def test_a_head_fits_as_it_does_with_keras_convolutions(name: str, precision: str, monkeypatch: pytest.MonkeyPatch):
    features, dataset = blobs(3, shape=(3, 3, 24))
    head = HeadConfig(name=name, filters=[2, 8], dense_widths=[8], dropout=0.3, l2=1e-3, spatial=True)
    training = TrainingConfig(epochs=3, batch_size=32, learning_rate=1e-2, precision=precision)
    called, fits, convolve = [], [], faster.convolution
    monkeypatch.setattr(faster, "convolution", lambda *given: called.append(given) or convolve(*given))
    for pays in (True, False):
        monkeypatch.setattr(faster, "pays", lambda pays=pays: pays)
        called.clear()
        fits.append(fit_head(features, dataset, head, training).history)
        assert bool(called) == pays
    np.testing.assert_allclose(fits[0], fits[1], rtol=1e-4 if precision == "float32" else 5e-2, atol=2e-2)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_network_trains_on_pixels_as_it_does_with_keras_operations(precision: str, monkeypatch: pytest.MonkeyPatch):
    random = np.random.default_rng(0)
    images, labels = random.normal(size=(5, 8, 9, 9, 3)).astype("float32"), np.eye(2, dtype="float32")[[0, 1] * 4]
    called, losses, convolve = [], [], faster.strided
    monkeypatch.setattr(faster, "strided", lambda *given: called.append(given) or convolve(*given))
    for pays in (True, False):
        monkeypatch.setattr(faster, "pays", lambda pays=pays: pays)
        keras.utils.set_random_seed(0)
        layers = keras.layers
        with_strides = [layers.Conv2D(32, 3), layers.Conv2D(4, 3, strides=2), layers.BatchNormalization()]
        ends = [layers.GlobalAveragePooling2D(), layers.Dense(2, activation="softmax", dtype="float32")]
        trunk = keras.Sequential([keras.Input((9, 9, 3)), *with_strides], name="trunk")
        for layer in trunk.layers:
            layer.dtype_policy = precision
        model = keras.Sequential([keras.Input((9, 9, 3)), trunk, *ends])
        compile_for(model, PixelsConfig(learning_rate=1e-2))
        called.clear()
        with backends.of_keras().spread(model, 8):
            losses.append([model.train_on_batch(batch, labels)[0] for batch in images])
        assert bool(called) == (pays and precision != "float32")
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5 if precision == "float32" else 5e-2)


@pytest.mark.parametrize(("scale", "center"), [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-5), ("mixed_bfloat16", 2e-2)])
def test_a_normalisation_in_one_operation_is_keras(
    dtype: str, close: float, training: bool, trainable: bool, scale: bool, center: bool
):
    random = np.random.default_rng(0)
    maps, given = (tf.constant(random.normal(1, 3, (6, 3, 2, 4)), "float32") for _ in range(2))
    gain, offset = random.normal(1, 1, 4), random.normal(0, 1, 4)
    found = []
    for compute in (faster.normalised, lambda layer, maps, training: layer(maps, training=training)):
        how = {"momentum": 0.7, "scale": scale, "center": center}
        layer = keras.layers.BatchNormalization(**how, trainable=trainable, dtype=dtype)
        layer.build(maps.shape)
        layer.set_weights([*[gain] * scale, *[offset] * center, gain * 2, np.abs(offset)])
        learned = [variable.value for variable in (layer.gamma, layer.beta) if variable is not None]
        with tf.GradientTape() as tape:
            tape.watch([maps, *learned])
            y = tf.cast(compute(layer, maps, training), "float32")
        of = tape.gradient(y, [maps, *learned], output_gradients=given)
        found.append([y, *of, *layer.get_weights()])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=close * np.abs(theirs).max())


def test_maps_of_a_size_that_is_not_known_are_convolved_as_keras_does(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(faster, "pays", lambda: True)
    layers = [
        keras.layers.Conv2D(4, 1),
        keras.layers.Conv2D(40, 3, padding="same"),
        keras.layers.Conv2D(3, 3, strides=2),
    ]
    for layer in layers:
        layer.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    model = keras.Sequential([keras.Input((None, None, 40)), *layers])

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 40), "float32")])
    def gradients(maps: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            y = model(maps, training=True)
        return tape.gradient(y, [variable.value for variable in model.trainable_variables])

    maps = np.random.default_rng(0).normal(size=(2, 7, 9, 40)).astype("float32")
    with faster.faster(model):
        found = gradients(maps)
    assert [g.shape for g in found] == [v.shape for v in model.trainable_variables]


def test_what_is_traced_of_a_model_leaves_it_as_it_was():
    model = keras.Sequential([
        keras.Input((4, 4, 9)),
        keras.layers.Conv2D(1, 3, padding="same", kernel_regularizer=keras.regularizers.L2(0.1)),
        keras.layers.BatchNormalization(),
        keras.layers.Conv2D(2, 2, strides=2),
        keras.layers.Conv2D(2, 1),
    ])  # fmt: skip
    before = model.get_config(), [sorted(vars(layer)) for layer in model.layers]
    with faster.faster(model):
        assert "call" in vars(model.layers[1])
    assert (model.get_config(), [sorted(vars(layer)) for layer in model.layers]) == before


def test_a_ridge_penalty_and_its_gradient_are_keras():
    weights = tf.Variable(np.random.default_rng(0).normal(size=(7, 5)), dtype="float32")
    found = []
    for penalty in (lambda w: faster.penalty(0.03, w), keras.regularizers.L2(0.03)):
        with tf.GradientTape() as tape:
            value = penalty(weights)
        found.append((value, tape.gradient(value, weights)))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("scales", [None, [1.0, 1.0]])
@pytest.mark.parametrize(("name", "options"), [("adam", {}), ("adamw", {"weight_decay": 0.1, "clipnorm": 1.0})])
def test_adam_in_one_operation_is_keras_adam(name: str, options: dict[str, float], scales: list[float] | None):
    kinds = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}
    random = np.random.default_rng(0)
    start, gradients = [random.normal(size=(6, 3)), random.normal(size=3)], random.normal(size=(5, 6, 3))
    found = []
    for optimizer in (build_optimizer(name, 0.05, scales=scales, **options), kinds[name](0.05, **options)):
        weights = [keras.Variable(value, name=f"kernel_{number}") for number, value in enumerate(start)]
        for gradient in gradients:
            optimizer.apply([tf.constant(part, "float32") for part in (gradient, gradient[0])], weights)
        found.append([weight.numpy() for weight in (*weights, *optimizer.variables)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_adam_takes_gradients_of_single_rows():
    table = keras.Variable(np.ones((4, 2)))
    single = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([2]), (4, 2))
    build_optimizer("adam", 0.1).apply([single], [table])
    np.testing.assert_allclose(table.numpy()[:, 0], [1, 1, 0.9, 1], atol=1e-6)
