"""OpenVINO: TensorFlow's graph with constant weights, compiled for this CPU; several batches at once."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments.backbones.networks import Backbone
from fer_experiments.errors import first_line
from fer_experiments.features.engines import Compiled, Unsuited
from fer_experiments.features.engines.tensorflow import constant_function

if TYPE_CHECKING:
    import keras

BATCH = 16  # images: larger ones were no faster on any machine that was measured
PRECISION = {"float32": "f32", "bfloat16": "bf16"}
_making = threading.Lock()


def converted(model: keras.Model, batch_size: int | None) -> Any:
    """An openvino.Model of a Keras model of uint8 pixels; None: of any batch size.

    Raises:
        Unsuited: OpenVINO cannot.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it would report to its makers
    import openvino

    function = constant_function(model, batch_size)
    own = {tensor.name for tensor in function.outputs}
    with _unsuited(model.name):
        made = openvino.convert_model(function)
        for output in list(made.outputs) if len(made.outputs) > len(own) else []:
            if not own & output.get_names():  # a number that Keras' attention asks for and nobody uses
                made.remove_result(output.node)
        return made


def core() -> Any:
    """The process's openvino.Core, which is never freed.

    One that is freed by another thread than the one that it was made in leaves that with a stack for signals that is
    none: the next signal, a Ctrl-C, would be a segmentation fault (OpenVINO 2026.4, on CPUs with AVX-512).
    """
    with _making:
        return _core()


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def compiled(model: Any, precision: str, goal: str) -> Any:
    """An openvino.CompiledModel of an openvino.Model, or of the .xml file of one. goal: OpenVINO's hint.

    Raises:
        Unsuited: OpenVINO cannot.
    """
    hints: dict[str, Any] = {"PERFORMANCE_HINT": goal, "INFERENCE_PRECISION_HINT": PRECISION[precision]}
    if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdigit():  # a worker's share of the cores
        hints["INFERENCE_NUM_THREADS"] = int(threads)
    with _unsuited(getattr(model, "friendly_name", model)):
        return core().compile_model(model, "CPU", hints)


@contextmanager
def _unsuited(name: str) -> Iterator[None]:
    """Says in a line what OpenVINO fails on: an operation that it does not know, and whatever else its parts raise."""
    try:
        yield
    except Exception as error:
        raise Unsuited(f"{name}: OpenVINO cannot compile it ({first_line(error, 200, named=True)})") from error


def compile_forward(backbone: Backbone, batch_size: int, precision: str) -> Compiled:
    """See `engine.compile_forward`; the last batch is padded, so that it is compiled once."""
    size = min(BATCH, batch_size)
    try:
        network = compiled(converted(backbone.model, size), precision, "THROUGHPUT")
    except Unsuited as error:
        raise Unsuited(f"{error}; say features.engine=tensorflow") from error
    count = network.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + 1  # one waits: no core does for this process
    free = [network.create_infer_request() for _ in range(count)]

    def start(images: np.ndarray) -> Callable[[], list[np.ndarray]]:
        request = free.pop()
        padding = [(0, size - len(images))] + [(0, 0)] * (images.ndim - 1)
        request.start_async([np.pad(images, padding)])

        def finish() -> list[np.ndarray]:
            request.wait()
            free.append(request)
            return [request.get_output_tensor(i).data[: len(images)].copy() for i in range(len(network.outputs))]

        return finish

    return Compiled(start, size, ahead=count)
