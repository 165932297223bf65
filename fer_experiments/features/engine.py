"""A backbone's forward pass by the engine that is asked for, or that is the fastest here."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from itertools import product
from typing import Any

import numpy as np

from fer_experiments.backbones.networks import Backbone
from fer_experiments.config import AUTO, FeaturesConfig
from fer_experiments.environment import hardware
from fer_experiments.errors import UserError
from fer_experiments.features.engines import Compiled, Unsuited

Forward = Callable[[np.ndarray], Iterator[list[np.ndarray]]]

# Relative error of a whole batch of features that is allowed; rounding gives 1e-5 in float32 and 1e-2 in bfloat16.
TOLERANCE = {"float32": 1e-2, "bfloat16": 5e-2}
# Every engine with its precisions, and the Keras backend that its networks are built with.
ENGINES = {
    "openvino": (("float32", "bfloat16"), "tensorflow"),
    "tensorflow": (("float32", "bfloat16"), "tensorflow"),
    "jax": (("float32",), "jax"),
}


def decisions(config: FeaturesConfig) -> list[FeaturesConfig]:
    """What `auto` in a config can come to, the fastest on this machine first; the config itself where it has none."""
    engine, precision = _best()
    engines = [engine, *ENGINES] if config.engine == AUTO else [config.engine]
    precisions = [precision, "float32", "bfloat16"] if config.precision == AUTO else [config.precision]
    pairs = dict.fromkeys(product(engines, precisions))
    every = config.engine != AUTO  # what is asked for is no matter of choice
    return [replace(config, engine=e, precision=p) for e, p in pairs if every or p in ENGINES[e][0]]


def is_here(engine: str) -> bool:
    """Whether an engine takes networks of this Keras backend."""
    return ENGINES[engine][1] == os.environ["KERAS_BACKEND"]


def _best() -> tuple[str, str]:
    """Engine and precision of `auto`, of what a forward pass costs here; docs/performance.md has the measurements."""
    if os.environ["KERAS_BACKEND"] == "jax":
        return "jax", "float32"
    if hardware()["gpus"]:
        import keras

        if keras.distribution.list_devices("gpu"):
            return "tensorflow", "float32"
    fast = {"avx512_bf16", "amx_bf16"} & set(hardware()["cpu_features"])
    return "openvino", "bfloat16" if fast else "float32"


def compile_forward(backbone: Backbone, batch_size: int, engine: str, precision: str) -> Forward:
    """A function from uint8 pixels [n, h, w(, 3)] to float32 features, batch by batch, one array a cut layer.

    Where memory is too small for a batch, batches become half as large, until they fit.

    Raises:
        UserError: an engine that the Keras backend or the installation does not have, or a precision that it has not.
    """
    precisions, needed = ENGINES[engine]
    if precision not in precisions:
        raise UserError(f"features.precision={precision}: features.engine={engine} has float32 alone; say that")
    if not is_here(engine):
        raise UserError(
            f"features.engine={engine}: only with KERAS_BACKEND={needed}; set it, or say features.engine=auto"
        )
    module = import_module(f"fer_experiments.features.engines.{engine}")
    compiled: list[Compiled] = []  # the one of the last call, which found a size that fits

    def forward(images: np.ndarray) -> Iterator[list[np.ndarray]]:
        done = 0
        while done < len(images):
            if not compiled:
                compiled.append(module.compile_forward(backbone, batch_size, precision))
            try:
                for features in _run(compiled[0], images[done:]):
                    done += len(features[0])
                    yield features
            except Exception as error:
                size = compiled[0].batch_size
                if size == 1 or not _out_of_memory(error):
                    raise
                compiled[:] = [module.compile_forward(backbone, size // 2, precision)]

    return forward


def _run(compiled: Compiled, images: np.ndarray) -> Iterator[list[np.ndarray]]:
    """The features of each batch in order, `ahead` batches begun before the first is waited for."""
    begun: deque[Callable[[], list[np.ndarray]]] = deque()
    for first in range(0, len(images), compiled.batch_size):
        begun.append(compiled.start(images[first : first + compiled.batch_size]))
        if len(begun) >= compiled.ahead:
            yield begun.popleft()()
    while begun:
        yield begun.popleft()()


def _out_of_memory(error: Exception) -> bool:
    """As TensorFlow, XLA and OpenVINO say it."""
    said = f"{type(error).__name__}: {error}"
    return isinstance(error, MemoryError) or any(
        sign in said for sign in ("RESOURCE_EXHAUSTED", "ResourceExhausted", "bad_alloc", "ut of memory")
    )


def joined(parts: Iterator[list[np.ndarray]]) -> list[np.ndarray]:
    """What a forward pass gives batch by batch, as one array a cut layer."""
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def check_parity(
    backbone: Backbone, forward: Forward, images: np.ndarray, precision: str = "float32"
) -> list[np.ndarray]:
    """What the compiled form gives for these pixels, an array a cut layer; stops when it disagrees with Keras.

    An exported form can be wrong while `predict` is right (MobileNetV2 behind preprocessing layers, without a warning).

    Raises:
        Unsuited: a relative error (norm of the difference over the norm) above TOLERANCE.
        UserError: features that are NaN.
    """
    import keras

    # flatten: Keras gives the only output of a model as it is, not as a list of one
    outputs: list[Any] = keras.tree.flatten(backbone.model(images, training=False))
    expected = [keras.ops.convert_to_numpy(x) for x in outputs]
    given = joined(forward(images))
    for layer, ours, theirs in zip(backbone.layers, given, expected, strict=True):
        if not np.isfinite(theirs).all():
            raise UserError(f"backbone={backbone.config.name}: {layer} gives NaN or infinity; are its weights whole?")
        error = float(np.linalg.norm(ours - theirs)) / max(float(np.linalg.norm(theirs)), 1e-30)
        if not error <= TOLERANCE[precision]:
            raise Unsuited(
                f"backbone={backbone.config.name}: the compiled network and Keras disagree on {layer} by {error:.1%} "
                f"(allowed: {TOLERANCE[precision]:.0%}); nothing was stored, another features.engine= or "
                "features.precision=float32 may do"
            )
    return given
