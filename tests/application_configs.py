"""Backbones out of keras.applications: a small one, and those that are shipped."""

from __future__ import annotations

from fer_experiments.config import BackboneConfig

MOBILE = BackboneConfig(name="mobile", kind="application", architecture="MobileNetV2", weights=None, input_size=32)
SHIPPED = ["InceptionResNetV2", "InceptionV3", "ResNet50", "MobileNetV2", "EfficientNetV2B0"]
