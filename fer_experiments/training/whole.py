"""One Keras model from uint8 pixels to class probabilities: preprocessing, backbone, heads, temperature.

It consists of Keras' own layers and operations alone, and those of KerasHub on a preset of it, so that a saved one is
loaded without this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments.backbones.copies import in_precision
from fer_experiments.backbones.networks import load_backbone
from fer_experiments.backbones.views import shown
from fer_experiments.config import BackboneConfig
from fer_experiments.errors import UserError
from fer_experiments.evaluation.calibration import LEAST

if TYPE_CHECKING:
    import keras

# Images that it takes to believe that an assembled model is right, with moved copies, and as many as are looked at.
CHECKED, ENOUGH, MANY = 32, 256, 512

# The largest difference of a probability that is allowed. On 256 real faces rounding made at most 4e-4 with float16
# features and 3e-3 with a head of mixed precision; a scaling one percent off made 3e-2, a flip view left out 2e-1.
TOLERANCE = 1e-2
# The largest mean difference after a forward pass in bfloat16. Six heads on 5,338 real faces had 5e-3 at most; their
# largest differences, up to 9e-2, say less than that.
ROUGH = 2e-2


@dataclass(frozen=True)
class Agreement:
    """How far two sets of probabilities of the same images lie apart.

    largest, mean: of the absolute differences.
    """

    images: int
    largest: float
    mean: float


def assemble(
    backbone_cfg: BackboneConfig,
    image_shape: tuple[int, ...],
    heads: Sequence[keras.Model],
    views: Sequence[str],
    classes: int,
    temperature: float = 1.0,
) -> keras.Model:
    """One model from uint8 pixels [n, *image_shape] to probabilities float32 [n, classes], in float32 throughout.

    Args:
        backbone_cfg: the backbone that the heads' features came from.
        image_shape: (h, w).
        heads: from features to probabilities, one sigmoid unit for two classes; they are copied, and their
            probabilities averaged.
        views: those of their features; the probabilities are averaged over them.
        classes: their number.
        temperature: of the probabilities; see `calibration.tempered`.

    Raises:
        UserError: what `load_backbone` raises; a head for other features, or for another number of classes.
    """
    backbone = load_backbone(backbone_cfg, (*image_shape, 1))
    copies = [_finished(head, f"{head.name}_{i}" if i else head.name) for i, head in enumerate(heads)]
    for copy in copies:
        _check_fit(backbone.model, copy, classes)
    return joined(backbone.model, copies, image_shape, views, temperature, training=False)


def joined(
    backbone: keras.Model,
    heads: Sequence[keras.Model],
    image_shape: tuple[int, ...],
    views: Sequence[str],
    temperature: float = 1.0,
    *,
    training: bool | None = None,
) -> keras.Model:
    """The model that `assemble` describes, of this very backbone and these heads; training: of Keras' calls."""
    import keras

    pixels = keras.Input(image_shape, dtype="uint8", name="pixels")
    gray = keras.ops.expand_dims(pixels, -1)
    seen = [shown(gray, view) for view in dict.fromkeys(views)]
    # One batch of all views: calling the backbone once a view would double the graph, and the time it takes to load.
    batch = keras.ops.concatenate(seen, axis=0) if len(seen) > 1 else seen[0]
    # training=False: without it an exported MobileNetV2 gave other features than predict, without a warning.
    features = keras.tree.flatten(backbone(batch, training=training))
    answers = [head(features if len(features) > 1 else features[0], training=training) for head in heads]
    probabilities = keras.layers.Average(name="heads", dtype="float32")(answers) if len(answers) > 1 else answers[0]
    if len(seen) > 1:
        by_view = keras.ops.reshape(probabilities, (len(seen), -1, probabilities.shape[-1]))
        probabilities = keras.ops.mean(by_view, axis=0)
    name = f"{backbone.name}_{heads[0].name}"
    return keras.Model(pixels, _at_temperature(of_each_class(probabilities), temperature), name=name)


def of_each_class(probabilities: Any) -> Any:
    """A probability a class [n, classes], of a head's output that may be that of the second of two alone."""
    from keras import layers

    if probabilities.shape[-1] > 1:
        return probabilities
    other = layers.Rescaling(-1.0, 1.0, name="other_class", dtype="float32")(probabilities)
    return layers.Concatenate(name="both_classes", dtype="float32")([other, probabilities])


def at_temperature(network: keras.Model, temperature: float) -> keras.Model:
    """A network to probabilities, with these divided by a temperature as `assemble` does it."""
    import keras

    if temperature == 1:
        return network
    return keras.Model(network.inputs, _at_temperature(network.outputs[0], temperature), name=network.name)


def _at_temperature(probabilities: Any, temperature: float) -> Any:
    from keras import layers, ops

    if temperature == 1:
        return probabilities
    logs = ops.log(ops.maximum(probabilities, LEAST))
    logits = layers.Rescaling(1 / temperature, name="inverse_temperature", dtype="float32")(logs)
    return layers.Activation("softmax", name="tempered", dtype="float32")(logits)


def enough(images: np.ndarray) -> np.ndarray:
    """The images [n, h, w, ...], and of few as many moved to the side as make ENOUGH of them."""
    moved = [np.roll(images, by, axis=2) for by in range(-(-ENOUGH // len(images)))]
    return np.concatenate(moved)[: max(len(images), ENOUGH)]


def compare(
    what: str,
    got: np.ndarray,
    expected: np.ndarray,
    tolerance: float = TOLERANCE,
    *,
    mean: bool = False,
    other: str = "the cached features",
    remedy: str = "extract the features again, or check that backbone and head are those of one run",
) -> Agreement:
    """How far two sets of probabilities [n, classes] of the same images lie apart; stops when it is too far.

    Args:
        what: gave `got`; for the message.
        got: of the model. expected: of the route it must agree with, `training.predict` on stored features.
        tolerance: the largest absolute difference of a probability that is allowed, or with `mean` their mean.
        other: gave `expected`. remedy: what its user can do; both for the message.

    Raises:
        UserError: a larger difference.
    """
    if got.shape != expected.shape:
        raise UserError(f"{what} gives probabilities {got.shape} where features give {expected.shape}; not promoted")
    differences = np.abs(got.astype("float64") - expected)
    moved = int(np.sum(got.argmax(axis=1) != expected.argmax(axis=1)))
    agreement = Agreement(len(got), float(differences.max()), float(differences.mean()))
    if not (agreement.mean if mean else agreement.largest) <= tolerance:  # nan too
        raise UserError(
            f"{what} and {other} disagree by up to {agreement.largest:.3g} (mean {agreement.mean:.2g}, "
            f"{moved} of {len(got)} images in another class; allowed: {'mean ' * mean}{tolerance:g}): {remedy}"
        )
    return agreement


def _finished(head: keras.Model, name: str) -> keras.Model:
    """A copy of the head that computes in float32 whatever it was trained in, and is trained no more."""
    import keras

    copy = in_precision(head, "float32")
    copy = keras.Model(copy.input, copy.output, name=name)
    copy.trainable = False
    return copy


def _check_fit(backbone: keras.Model, head: keras.Model, classes: int) -> None:
    """Refuses a head that was made for other features or another number of classes."""
    made, taken = ([tuple(t.shape[1:]) for t in tensors] for tensors in (backbone.outputs, head.inputs))
    if made != taken:
        raise UserError(f"head={head.name} takes features {taken}, and the backbone makes {made}: not a pair")
    units = head.output_shape[-1]
    if units != (1 if classes == 2 else classes):
        raise UserError(f"head={head.name} has {units} outputs, which do not fit {classes} classes")
