"""The precision that heads are fitted in."""

from __future__ import annotations

import os
from dataclasses import replace

from fer_experiments.config import AUTO, HeadConfig, TrainingConfig
from fer_experiments.environment import gpus, hardware

# Heads whose accuracy bfloat16 does not change, over twenty seeds on real faces; `conv` may lose 0.4 points.
BEAR_BFLOAT16 = ("paper",)


def decisions(training: TrainingConfig, head: HeadConfig) -> list[TrainingConfig]:
    """What `auto` in a config can come to, the fastest on this machine first; the config itself where it has none.

    In bfloat16 convolutions are fitted twice as fast on a CPU with AMX; docs/performance.md has the measurements.
    """
    if training.precision != AUTO:
        return [training]
    fast = head.name in BEAR_BFLOAT16 and training.unfreeze is None and computes_products_in_bfloat16()
    precisions = ("mixed_bfloat16", "float32") if fast else ("float32", "mixed_bfloat16")
    return [replace(training, precision=precision) for precision in precisions]


def computes_products_in_bfloat16() -> bool:
    """Whether TensorFlow computes here, on a CPU whose products of matrices are faster in bfloat16."""
    return os.environ["KERAS_BACKEND"] == "tensorflow" and "amx_bf16" in hardware()["cpu_features"] and not gpus()
