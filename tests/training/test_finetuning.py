"""Fine-tuning of a small network with normalisations, on images whose class shows."""

from __future__ import annotations

import multiprocessing
import os
import signal
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from in_memory import make_dataset

from fer_experiments.backbones.networks import Backbone, load_backbone
from fer_experiments.config import BackboneConfig, FeaturesConfig, FinetuneConfig, HeadConfig, TrainingConfig
from fer_experiments.data import Dataset
from fer_experiments.errors import FitError, UserError
from fer_experiments.features.cache import exact_features
from fer_experiments.training import pixels
from fer_experiments.training.finetuning import fine_tune, unfreeze
from fer_experiments.training.fit import fit_head
from fer_experiments.training.result import TrainingResult, trainable_parameters

HOW = FinetuneConfig(epochs=3, batch_size=16, learning_rate=0.01, warmup_epochs=1, ema=0.5, layer_decay=0.5, mixup=0.2)
TRAINING = TrainingConfig(
    epochs=2, batch_size=16, deterministic=True, precision="float32", unfreeze="all", finetune=HOW
)
HEAD = HeadConfig(name="pooled", dense_widths=[8], dropout=0.3, l2=1e-4)
VIEWS = ["original", "flip"]
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
        x = keras.layers.ReLU(name=f"{name}_relu")(x)
    path = tmp_path_factory.mktemp("trunk") / "trunk.keras"
    keras.Model(face, keras.layers.Dropout(0.2)(x)).save(path)
    return path


def config(trunk: Path) -> BackboneConfig:
    scaling = {"mean": 127.5, "scale": 127.5}
    return BackboneConfig(name="small", kind="keras_file", weights=str(trunk), input_size=16, scaling=scaling)


def data() -> Dataset:
    """Of the second class the left half is brighter than the right one, or the other way round."""
    dataset = make_dataset(np.arange(78) % 2, ("even", "split"))
    images = dataset.images // 2
    images[1::4, :, :24] += 64
    images[3::4, :, 24:] += 64
    return replace(dataset, images=images)


def tuned(trunk: Path, folder: Path, *, on_epoch: Any = None, **changes: Any) -> TrainingResult:
    """Both stages; changes: of the training, or of its section finetune."""
    own = {key: changes.pop(key) for key in [*changes] if hasattr(HOW, key)}
    training = replace(TRAINING, **changes, finetune=replace(HOW, **own))
    backbone, dataset = loaded(trunk, training), data()
    features = exact_features(dataset.images, backbone.config, FeaturesConfig(views=VIEWS, engine="tensorflow"))
    fit = fit_head(features, dataset, HEAD, training)
    return fine_tune(backbone, fit, dataset, VIEWS, training, folder, on_epoch)


def loaded(trunk: Path, training: TrainingConfig) -> Backbone:
    backbone = load_backbone(config(trunk), (48, 48, 1), training.precision)
    unfreeze(backbone.trunk, training)
    return backbone


def weights_of(model: keras.Model, name: str) -> list[np.ndarray]:
    """Of a layer of the trunk, wherever in the model it is."""
    (layer,) = [layer for layer in model._flatten_layers() if layer.name == name]
    return [np.array(weight) for weight in layer.get_weights()]


def same(one: TrainingResult, other: TrainingResult) -> None:
    assert one.history.equals(other.history) and one.best_epoch == other.best_epoch
    assert np.array_equal(one.val_probabilities, other.val_probabilities)
    for first, second in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        assert np.array_equal(first, second)


@pytest.fixture(scope="module")
def whole(trunk: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return tuned(trunk, tmp_path_factory.mktemp("whole"))


def test_both_stages_are_in_the_history_and_the_model_is_that_of_the_best_epoch(whole: TrainingResult) -> None:
    dataset = data()
    assert list(whole.history.index) == [0, 1, 2, 3, 4] and 2 <= whole.best_epoch < 5
    said = whole.model.predict(dataset.images[dataset.val], verbose=0)
    np.testing.assert_allclose(said, whole.val_probabilities, atol=1e-6)
    right = np.mean(said.argmax(axis=1) == dataset.labels[dataset.val])
    assert right == whole.history["val/accuracy"][whole.best_epoch]
    assert whole.history["val/loss"][whole.best_epoch] == whole.history["val/loss"][2:].min()
    mirrored = whole.model.predict(dataset.images[dataset.val][:, :, ::-1], verbose=0)
    np.testing.assert_allclose(said, mirrored, atol=1e-5)  # averaged over the views
    assert not whole.model.trainable_variables


def test_interrupted_between_epochs_it_goes_on_to_the_same_bits(
    whole: TrainingResult, trunk: Path, tmp_path: Path
) -> None:
    def interrupt(epoch: int, row: dict[str, float]) -> None:
        if epoch == 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        tuned(trunk, tmp_path, on_epoch=interrupt)
    epochs: list[int] = []
    same(tuned(trunk, tmp_path, on_epoch=lambda epoch, row: epochs.append(epoch)), whole)
    assert epochs == [2]
    same(tuned(trunk, tmp_path, on_epoch=lambda epoch, row: epochs.append(epoch)), whole)
    assert epochs == [2], "one that is finished trains no more"


@pytest.mark.parametrize("damage", ["cut", "empty", "changed"])
def test_a_damaged_state_is_named_and_nothing_of_it_is_taken(trunk: Path, tmp_path: Path, damage: str) -> None:
    def interrupt(epoch: int, row: dict[str, float]) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        tuned(trunk, tmp_path, on_epoch=interrupt)
    (state,) = tmp_path.rglob("state.npz")
    content = bytearray(state.read_bytes())
    with zipfile.ZipFile(state) as stored:
        largest = max(stored.infolist(), key=lambda member: member.file_size)
    content[largest.header_offset + 256 + largest.file_size // 2] ^= 1
    state.write_bytes({"cut": content[:-100], "empty": b"", "changed": content}[damage])
    with pytest.raises(UserError, match=r"state\.npz: damaged \(.*\); delete it, and training begins anew$"):
        tuned(trunk, tmp_path)
    state.unlink()
    epochs: list[int] = []
    tuned(trunk, tmp_path, on_epoch=lambda epoch, row: epochs.append(epoch))
    assert epochs[0] == 0


def die_inside_the_second_epoch(trunk: Path, folder: Path) -> None:
    augment, calls = pixels.augment, [0]

    def last(*arguments: Any) -> np.ndarray:
        calls[0] += 1
        if calls[0] == STEPS + 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return augment(*arguments)

    pixels.augment = last
    tuned(trunk, folder)


def test_killed_inside_an_epoch_it_goes_on_to_the_same_bits(whole: TrainingResult, trunk: Path, tmp_path: Path) -> None:
    process = multiprocessing.get_context("forkserver").Process(
        target=die_inside_the_second_epoch, args=(trunk, tmp_path)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    epochs: list[int] = []
    same(tuned(trunk, tmp_path, on_epoch=lambda epoch, row: epochs.append(epoch)), whole)
    assert epochs == [1, 2]


@pytest.mark.parametrize("asked", [False, True])
def test_a_backbones_normalisations_stay_as_they_are_unless_asked(trunk: Path, tmp_path: Path, asked: bool) -> None:
    before = keras.models.load_model(trunk)
    after = tuned(trunk, tmp_path, epochs=1, batch_norm=asked).model
    for old, new in zip(weights_of(before, "second_norm"), weights_of(after, "second_norm"), strict=True):
        assert np.array_equal(old, new) != asked  # gamma, beta, mean, variance
    assert not np.array_equal(weights_of(before, "first")[0], weights_of(after, "first")[0])


def test_what_is_below_stays_frozen_in_mixed_precision_too(trunk: Path, tmp_path: Path) -> None:
    before = keras.models.load_model(trunk)
    result = tuned(trunk, tmp_path, epochs=1, unfreeze="second", batch_norm=True, precision="mixed_bfloat16")
    for name in ("first", "first_norm"):
        for old, new in zip(weights_of(before, name), weights_of(result.model, name), strict=True):
            assert np.array_equal(old, new)
    assert not np.array_equal(weights_of(before, "second")[0], weights_of(result.model, "second")[0])
    assert {layer.compute_dtype for layer in result.model._flatten_layers() if layer.weights} == {"float32"}


@pytest.mark.parametrize(
    ("named", "batch_norm", "learning", "parameters"),
    [
        ("all", False, ["first", "second"], 168 + 330),
        ("all", True, ["first", "first_norm", "second", "second_norm"], 168 + 330 + 24),
        ("2", True, ["second", "second_norm"], 330 + 12),
        ("1", True, ["second_norm"], 12),
        ("first_relu", False, ["second"], 330),
    ],
)
def test_what_is_unfrozen_learns(
    trunk: Path, named: str, batch_norm: bool, learning: Sequence[str], parameters: int
) -> None:
    network = loaded(trunk, replace(TRAINING, unfreeze=named, finetune=replace(HOW, batch_norm=batch_norm))).trunk
    assert [layer.name for layer in network.layers if layer.trainable_variables] == learning
    assert trainable_parameters(network) == parameters


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("secnd", r"training\.unfreeze=secnd: small has no such layer; did you mean second"),
        ("9", r"training\.unfreeze=9: small has 4 layers with weights; or say all"),
        ("second_relu", r"training\.unfreeze=second_relu: nothing there can learn"),
    ],
)
def test_layers_that_are_not_there_are_refused(trunk: Path, named: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loaded(trunk, replace(TRAINING, unfreeze=named))


def test_layers_below_are_left_though_another_above_has_their_name() -> None:
    below, above = keras.Input((16, 16, 3)), keras.Input((16, 16, 3))
    conv = partial(keras.layers.Conv2D, 3, 3, padding="same")
    inner = keras.Model(below, conv(name="second")(conv(name="first")(below)), name="inner")
    trunk = keras.Model(above, conv(name="third")(conv(name="first")(inner(above))), name="outer")
    unfreeze(trunk, replace(TRAINING, unfreeze="second"))
    learning = [layer.name for layer in trunk._flatten_layers() if not layer._layers and layer.trainable_variables]
    assert sorted(learning) == ["first", "second", "third"] and not inner.get_layer("first").trainable
    with pytest.raises(UserError, match=r"training\.unfreeze=first: outer has 2 layers of that name; say a number"):
        unfreeze(trunk, replace(TRAINING, unfreeze="first"))


def test_it_ends_after_so_many_epochs_without_a_better_one(trunk: Path, tmp_path: Path) -> None:
    result = tuned(trunk, tmp_path, epochs=6, learning_rate=1e-12, patience=1, ema=0.0, monitor="val_accuracy")
    assert len(result.history) - len(result.history[:2]) == 2  # the first is the best, the second is not better


def test_a_loss_that_is_not_a_number_is_said_with_its_key(trunk: Path, tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"in epoch 1: try a smaller training\.finetune\.learning_rate"):
        tuned(trunk, tmp_path, learning_rate=1e30, warmup_epochs=0, clip_norm=None)
