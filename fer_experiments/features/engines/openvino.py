"""OpenVINO: TensorFlow's graph with constant weights, compiled for this CPU; several batches at once."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from fer_experiments.backbones.networks import Backbone
from fer_experiments.features.engines import Compiled
from fer_experiments.features.engines.tensorflow import constant_function

BATCH = 16  # images: larger ones were no faster on any machine that was measured
PRECISION = {"float32": "f32", "bfloat16": "bf16"}


def compile_forward(backbone: Backbone, batch_size: int, precision: str) -> Compiled:
    """See `engine.compile_forward`; the last batch is padded, so that it is compiled once."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it would report to its makers
    import openvino

    size = min(BATCH, batch_size)
    model = openvino.convert_model(constant_function(backbone, size))
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": PRECISION[precision]}
    compiled = openvino.compile_model(model, "CPU", hints)
    count = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    free = [compiled.create_infer_request() for _ in range(count)]

    def start(images: np.ndarray) -> Callable[[], list[np.ndarray]]:
        request = free.pop()
        padding = [(0, size - len(images))] + [(0, 0)] * (images.ndim - 1)
        request.start_async([np.pad(images, padding)])

        def finish() -> list[np.ndarray]:
            request.wait()
            free.append(request)
            return [request.get_output_tensor(i).data[: len(images)].copy() for i in range(len(compiled.outputs))]

        return finish

    return Compiled(start, size, ahead=count)
