"""VGGFace's ResNet-50, which knows the people of VGGFace2: the network of keras-vggface, and how its file is read.

It differs from that of keras.applications: convolutions have no biases, a stage's stride is in its first 1x1, and its
input is blue, green, red less their means. Layers have the names of keras-vggface, with _ for its /, which Keras 3
does not take. Cut layers: conv2_3, conv3_4, conv4_6, conv5_3 (the output), and every block in between.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

STAGES = {2: (3, 64), 3: (4, 128), 4: (6, 256), 5: (3, 512)}  # blocks and filters
MEANS = (91.4953, 103.8827, 131.0912)  # of VGGFace2's blue, green and red: its preprocess_input(version=2)
LEAST = 5  # pixels that leave something to pool


def build(size: int, channels: int) -> keras.Model:
    """The network with random weights, from pixels [b, size, size, channels] less MEANS to a map of 2048 channels."""
    pixels = keras.Input((size, size, channels))
    x = layers.ReLU(name="conv1")(_convolved(pixels, 64, 7, 2, "conv1_7x7_s2"))
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    for stage, (blocks, filters) in STAGES.items():
        for number in range(1, blocks + 1):
            x = _block(x, filters, 2 if number == 1 and stage > 2 else 1, f"conv{stage}_{number}", widen=number == 1)
    return keras.Model(pixels, x, name="vggface_resnet50")


def _block(x: Any, filters: int, strides: int, name: str, *, widen: bool) -> Any:
    y = layers.ReLU(name=f"{name}_relu1")(_convolved(x, filters, 1, strides, f"{name}_1x1_reduce"))
    y = layers.ReLU(name=f"{name}_relu2")(_convolved(y, filters, 3, 1, f"{name}_3x3"))
    y = _convolved(y, 4 * filters, 1, 1, f"{name}_1x1_increase")
    shortcut = _convolved(x, 4 * filters, 1, strides, f"{name}_1x1_proj") if widen else x
    return layers.ReLU(name=name)(layers.Add(name=f"{name}_add")([y, shortcut]))


def _convolved(x: Any, filters: int, kernel: int, strides: int, name: str) -> Any:
    x = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False, name=name)(x)
    return layers.BatchNormalization(name=f"{name}_bn")(x)


def read_weights(network: keras.Model, path: Path) -> None:
    """Gives the network the weights of keras-vggface's file without the top: HDF5 as Keras 2 wrote it, by layers.

    Raises:
        ValueError: a file of another network. OSError, KeyError: not such a file.
    """
    stored = _stored(path)
    wanted = {f"{layer.name}/{w.name}": tuple(w.shape) for layer in network.layers for w in layer.weights}
    for name in sorted(wanted.keys() ^ stored.keys()):
        raise ValueError(f"{name} is {'missing' if name in wanted else 'of another network'}")
    for name, shape in wanted.items():
        if stored[name].shape != shape:
            raise ValueError(f"{name} is {stored[name].shape}, must be {shape}")
    for layer in network.layers:
        layer.set_weights([stored[f"{layer.name}/{weight.name}"] for weight in layer.weights])


def _stored(path: Path) -> dict[str, np.ndarray]:
    """The weights in the file as <layer>/<weight>, in the names of `build`."""
    import h5py

    with h5py.File(path) as file:
        whole = file.get("model_weights", file)  # of a file with the architecture in it
        return {
            f"{_text(layer).replace('/', '_')}/{_text(weight).rpartition('/')[2].partition(':')[0]}": group[weight][()]
            for layer in whole.attrs["layer_names"]
            for group in [whole[layer]]
            for weight in group.attrs["weight_names"]
        }


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
