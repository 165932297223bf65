"""Stores that are quick to name: in a folder, and whether anything is there or not."""

from __future__ import annotations

from pathlib import Path

from fer_experiments.config import Config, DataConfig, PathsConfig, TrackingConfig
from fer_experiments.tracking import Store


def config_in(mlruns: Path, uri: str | None = None, credentials: object = None, task: str = "test") -> Config:
    """A config that records in this folder, or in the store with this address."""
    tracking = TrackingConfig(uri, credentials and str(credentials))
    return Config(data=DataConfig(task=task), tracking=tracking, paths=PathsConfig(mlruns=str(mlruns)))


def store_in(mlruns: Path) -> Store:
    """What a command has recorded there about demo faces; nothing is created or checked."""
    return Store(f"sqlite:///{mlruns}/mlflow.db", mlruns, "fer/demo")
