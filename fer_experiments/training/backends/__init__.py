"""Passes as compiled functions, one file a Keras backend, named as it: Keras has no call for them that both know."""

from importlib import import_module
from types import ModuleType


def of_keras() -> ModuleType:
    """That of the backend which Keras runs on."""
    import keras

    return import_module(f"{__name__}.{keras.config.backend()}")
