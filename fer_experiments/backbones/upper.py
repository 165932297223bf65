"""What is above a cut layer: a network of its own, from stored features to the backbone's output."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from fer_experiments.backbones.networks import load_backbone
from fer_experiments.config import BackboneConfig
from fer_experiments.errors import UserError

if TYPE_CHECKING:
    import keras


def load_upper(cfg: BackboneConfig, precision: str = "float32") -> keras.Model:
    """The layers above the one cut layer, by their names, from its features to the network's output.

    precision: its dtype policy.

    Raises:
        UserError: what `load_backbone` raises; layers that take more than these features.
    """
    import keras

    (layer,) = cfg.layers
    whole = load_backbone(replace(cfg, layers=[]), (1, 1, 1), precision).trunk
    try:
        return keras.Model(
            whole.get_layer(layer).output, whole.outputs, name=re.sub(r"\W", "_", f"{whole.name}_above_{layer}")
        )
    except ValueError as error:
        raise UserError(
            f"backbone.layers=[{layer}]: what is above it in {cfg.name} takes more than its features; cut where "
            "everything passes through"
        ) from error
