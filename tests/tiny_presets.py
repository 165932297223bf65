"""Presets of KerasHub with random weights, small enough to be made in a second each, in folders as it writes them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import keras_hub
import pytest

from fer_experiments.config import BackboneConfig

SIZE = 32  # of its input; patches of 8
VISION: dict[str, Any] = {"patch_size": 8, "hidden_dim": 16, "num_layers": 2, "num_heads": 2, "intermediate_dim": 32}
TEXT = {"vocabulary_size": 20, "embedding_dim": 16, "hidden_dim": 16, "num_layers": 1, "num_heads": 2}
MODELS, LAYERS = keras_hub.models, keras_hub.layers


def save_vit(folder: Path, **converter: Any) -> Path:
    """ViT: a class token and 16 patches."""
    shape = {"image_shape": (SIZE, SIZE, 3), "patch_size": 8, "num_layers": 2, "num_heads": 2}
    return _save(folder, MODELS.ViTBackbone(**shape, hidden_dim=16, mlp_dim=32), LAYERS.ViTImageConverter, **converter)


def save_dinov2(folder: Path, **converter: Any) -> Path:
    """DINOv2: a class token, two registers and 16 patches, whose positions are those of 36 interpolated."""
    shapes = {"image_shape": (SIZE, SIZE, 3), "position_embedding_shape": (48, 48, 3), "num_register_tokens": 2}
    return _save(folder, MODELS.DINOV2Backbone(**VISION, **shapes), LAYERS.DINOV2ImageConverter, **converter)


def save_clip(folder: Path, **converter: Any) -> Path:
    """CLIP: pictures (a class token and 16 patches) and texts."""
    vision = MODELS.CLIPVisionEncoder(**VISION, image_shape=(SIZE, SIZE, 3), name="clip_vision_encoder")
    text = MODELS.CLIPTextEncoder(**TEXT, intermediate_dim=32, max_sequence_length=8)
    both = MODELS.CLIPBackbone(vision_encoder=vision, text_encoder=text, projection_dim=16)
    return _save(folder, both, LAYERS.CLIPImageConverter, **converter)


def save_siglip(folder: Path, **converter: Any) -> Path:
    """SigLIP: pictures (16 patches, pooled by attention) and texts."""
    vision = MODELS.SigLIPVisionEncoder(**VISION, image_shape=(SIZE, SIZE, 3), name="vision_encoder")
    text = MODELS.SigLIPTextEncoder(**TEXT, intermediate_dim=32, max_sequence_length=8)
    return _save(
        folder,
        MODELS.SigLIPBackbone(vision_encoder=vision, text_encoder=text),
        LAYERS.SigLIPImageConverter,
        **converter,
    )


def save_resnet(folder: Path, **converter: Any) -> Path:
    """ResNet: a map of 4x4x64, of pictures of any size."""
    stages = {"stackwise_num_filters": [64, 64], "stackwise_num_blocks": [1, 1], "stackwise_num_strides": [1, 2]}
    stem = {"input_conv_filters": [64], "input_conv_kernel_sizes": [3]}
    network = MODELS.ResNetBackbone(**stem, **stages, block_type="basic_block", image_shape=(None, None, 3))
    return _save(folder, network, LAYERS.ResNetImageConverter, **converter)


def _save(folder: Path, network: keras.Model, converter: Any, **options: Any) -> Path:
    keras.utils.set_random_seed(0)
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.Dense | keras.layers.EinsumDense):  # else blocks hardly change their input
            layer.set_weights([4 * weight for weight in layer.get_weights()])
    network.save_to_preset(str(folder))
    given = {"image_size": (SIZE, SIZE), "scale": [1 / 60, 1 / 50, 1 / 40], "offset": [-2.0, -2.5, -3.0], **options}
    converter(**given, _allow_python_workflow=True).save_to_preset(str(folder))
    return folder


def preset(folder: Path, **changes: Any) -> BackboneConfig:
    """The config of such a preset, with its own input size and scaling."""
    own: dict[str, Any] = {"name": "tiny", "kind": "keras_hub", "weights": "preset", "input_size": None}
    return BackboneConfig(**{**own, "preset": str(folder), **changes})


def forget_keras_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not imported it."""
    for known in (sys.modules, keras.saving.get_custom_objects()):
        for name in [n for n in known if n.startswith("keras_hub")]:
            monkeypatch.delitem(known, name)
