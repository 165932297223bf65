"""Fine-tuning of the layers above a cut layer, on what is stored of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from in_memory import make_dataset

from fer_experiments.backbones.upper import load_upper
from fer_experiments.config import BackboneConfig, FeaturesConfig, FinetuneConfig, HeadConfig, TrainingConfig
from fer_experiments.data import Dataset
from fer_experiments.errors import UserError
from fer_experiments.features.cache import Unstored, exact_features
from fer_experiments.training import finetuning
from fer_experiments.training.finetuning import fine_tune_above, passed, unfreeze
from fer_experiments.training.fit import fit_head, make_reproducible, predict
from fer_experiments.training.result import TrainingResult, trainable_parameters
from fer_experiments.training.whole import assemble

HOW = FinetuneConfig(epochs=3, batch_size=16, learning_rate=0.01, warmup_epochs=1, ema=0.5, layer_decay=0.5, mixup=0.2)
TRAINING = TrainingConfig(
    epochs=2, batch_size=16, deterministic=True, precision="float32", unfreeze="all", from_features=True, finetune=HOW
)
HEAD = HeadConfig(name="pooled", dense_widths=[8], dropout=0.3, l2=1e-4)
VIEWS = ["original", "crop1_flip"]
FEATURES = FeaturesConfig(views=VIEWS, engine="tensorflow")
STEPS = 3  # of an epoch


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(0)
    x = face = keras.Input((16, 16, 3))
    for name in ("first", "second"):
        x = keras.layers.Conv2D(6, 3, strides=2, padding="same", name=name)(x)
        x = keras.layers.BatchNormalization(name=f"{name}_norm")(x)
        out = keras.layers.ReLU(name=f"{name}_relu")(x)
        x = keras.layers.Add(name=f"{name}_sum")([x, out])
    path = tmp_path_factory.mktemp("trunk") / "trunk.keras"
    keras.Model(face, keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))).save(path)
    return path


def config(trunk: Path, cut: str = "first_sum") -> BackboneConfig:
    scaling = {"mean": 127.5, "scale": 127.5}
    return BackboneConfig(
        name="small", kind="keras_file", weights=str(trunk), input_size=16, scaling=scaling, layers=[cut]
    )


def data(classes: int = 2) -> Dataset:
    """A class is as bright as its number says."""
    labels = np.arange(78) % classes
    dataset = make_dataset(labels, tuple("abc"[:classes]))
    return replace(dataset, images=(dataset.images // 2 + 40 * labels[:, None, None]).astype("uint8"))


def stored(trunk: Path, dataset: Dataset) -> Unstored:
    return exact_features(dataset.images, config(trunk), FEATURES)


def tuned(trunk: Path, folder: Path, dataset: Dataset, *, on_epoch: Any = None, **changes: Any) -> TrainingResult:
    """Both stages; changes: of the training, or of its section finetune."""
    own = {key: changes.pop(key) for key in [*changes] if hasattr(HOW, key)}
    training, features = replace(TRAINING, **changes, finetune=replace(HOW, **own)), stored(trunk, dataset)
    make_reproducible(training)
    upper = load_upper(config(trunk), training.precision)
    unfreeze(upper, training)
    fit = fit_head(passed(load_upper(config(trunk)), features, len(dataset.images)), dataset, HEAD, training)
    return fine_tune_above(upper, fit, dataset, features, training, folder, on_epoch)


def layer(model: keras.Model, name: str) -> keras.layers.Layer:
    (found,) = [layer for layer in model._flatten_layers() if layer.name == name]
    return found


@pytest.fixture(scope="module")
def whole(trunk: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return tuned(trunk, tmp_path_factory.mktemp("whole"), data())


def test_the_layers_above_a_cut_give_what_the_network_gives(trunk: Path) -> None:
    dataset = data()
    cut = stored(trunk, dataset)
    (above,) = passed(load_upper(config(trunk)), cut, len(dataset.images)).take(np.arange(78), "crop1_flip")
    output = exact_features(dataset.images, replace(config(trunk), layers=[]), FEATURES)
    np.testing.assert_allclose(above, output.take(np.arange(78), "crop1_flip")[0], atol=1e-5)


def test_what_comes_of_it_is_a_head_on_the_stored_features(whole: TrainingResult, trunk: Path) -> None:
    dataset = data()
    features = stored(trunk, dataset)
    assert list(whole.history.index) == [0, 1, 2, 3, 4] and 2 <= whole.best_epoch < 5
    said = predict(whole.model, features, dataset.val)
    np.testing.assert_allclose(said, whole.val_probabilities, atol=1e-6)
    assert (
        np.mean(said.argmax(axis=1) == dataset.labels[dataset.val]) == whole.history["val/accuracy"][whole.best_epoch]
    )
    network = assemble(config(trunk), (48, 48), [whole.model], VIEWS, 2)
    np.testing.assert_allclose(network.predict(dataset.images[dataset.val], verbose=0), said, atol=1e-4)
    assert trainable_parameters(whole.model) == 330 + 6 * 8 + 8 + 8 + 1  # without the normalisation


@pytest.mark.filterwarnings("error::UserWarning")  # of Keras, on heads that take no list
def test_saved_and_loaded_it_says_the_same(whole: TrainingResult, trunk: Path, tmp_path: Path) -> None:
    dataset = data()
    whole.model.save(tmp_path / "head.keras")
    again = keras.models.load_model(tmp_path / "head.keras")
    np.testing.assert_array_equal(predict(again, stored(trunk, dataset), dataset.val), whole.val_probabilities)


def test_interrupted_inside_an_epoch_it_goes_on_to_the_same_bits(
    whole: TrainingResult, trunk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails(finetuning.Rows):
        calls = 0

        def take(self, places: np.ndarray) -> list[np.ndarray]:
            Fails.calls += 1
            if Fails.calls == STEPS + 3:
                raise Interrupted
            return super().take(places)

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(finetuning, "Rows", Fails)
        tuned(trunk, tmp_path, data())
    epochs: list[int] = []
    again = tuned(trunk, tmp_path, data(), on_epoch=lambda epoch, row: epochs.append(epoch))
    assert epochs == [1, 2]
    assert again.history.equals(whole.history)
    for one, other in zip(again.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("asked", [False, True])
def test_of_three_classes_in_mixed_precision_with_normalisations_as_asked(
    trunk: Path, tmp_path: Path, asked: bool
) -> None:
    before = keras.models.load_model(trunk)
    after = tuned(trunk, tmp_path, data(3), epochs=1, batch_norm=asked, precision="mixed_bfloat16").model
    assert after.output_shape == (None, 3)
    assert {each.compute_dtype for each in after._flatten_layers() if each.weights} == {"float32"}
    models = [each for each in after._flatten_layers() if isinstance(each, keras.Model)]
    assert len(models) > 1 and {tensor.dtype for each in models for tensor in each.inputs} == {"float32"}
    assert not np.array_equal(layer(before, "second").get_weights()[0], layer(after, "second").get_weights()[0])
    for old, new in zip(
        layer(before, "second_norm").get_weights(), layer(after, "second_norm").get_weights(), strict=True
    ):
        assert np.array_equal(old, new) != asked


def test_views_are_the_augmentation(trunk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    class Heard(finetuning.Rows):
        def take(self, places: np.ndarray) -> list[np.ndarray]:
            seen.append(places // len(self))
            return super().take(places)

    monkeypatch.setattr(finetuning, "Rows", Heard)
    tuned(trunk, tmp_path, data(), epochs=1)
    assert len(seen) == STEPS and {*np.concatenate(seen)} == {0, 1}


@pytest.mark.parametrize(
    ("cut", "named", "message"),
    [
        ("first_sum", "first", r"training\.unfreeze=first: small_above_first_sum has no such layer"),
        ("second_sum", "all", r"training\.unfreeze=all: nothing there can learn"),
        ("second_relu", "all", r"backbone\.layers=\[second_relu\]: what is above it in small takes more than its feat"),
    ],
)
def test_what_cannot_be_gone_on_from_is_refused(trunk: Path, cut: str, named: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        unfreeze(load_upper(config(trunk, cut)), replace(TRAINING, unfreeze=named))


@pytest.mark.parametrize(("scale", "message"), [(1e-9, "too small for float16"), (1e6, "over float16's 65,504")])
def test_what_the_stored_dtype_cannot_hold_is_refused(scale: float, message: str) -> None:
    pixels = keras.Input((4, 4, 3))
    upper = keras.Model(pixels, keras.layers.Rescaling(scale)(pixels), name="upper")
    features = Unstored({"original": [np.random.default_rng(0).random((8, 4, 4, 3)).astype("float16")]})
    with pytest.raises(UserError, match=f"features of upper .*{message}.*: say features.dtype=float32"):
        passed(upper, features, 8)
