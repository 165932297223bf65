"""What of a config is the experiment, and what only its place or its budget: read from the marks of the schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from fer_experiments.config.folders import expanded, project_root
from fer_experiments.config.marks import BUDGET, FITTED, PLACE, PREPARED
from fer_experiments.config.schema import EVERY, Config


def marked(mark: str, value: Any = None) -> dict[str, Any]:
    """The config paths whose fields have a mark, and what it says; those of one value alone where one is given."""
    return {
        f"{section.name}.{field.name}": field.metadata[mark]
        for section in fields(EVERY)
        for field in fields(getattr(EVERY, section.name))
        if mark in field.metadata and value in (None, field.metadata[mark])
    }


def _sections(part: str) -> tuple[str, ...]:
    return tuple(section.name for section in fields(Config) if section.metadata["part"] == part)


PREPARED_SECTIONS = _sections(PREPARED)
FITTED_SECTIONS = _sections(FITTED)
EXPERIMENT_SECTIONS = (*PREPARED_SECTIONS, *FITTED_SECTIONS)
PLACES = {*_sections(PLACE), *marked("part", PLACE)}
BUDGET_PATHS = marked("part", BUDGET).keys()
YOUNGER = marked("younger")  # what was so before these paths, which older sweeps do not have
DECLARED_PATHS = marked("declared").keys()


def experiment(container: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a config, as plain containers, that are the experiment; where its data lie is among them."""
    return {name: section for name, section in container.items() if name in EXPERIMENT_SECTIONS}


def is_place(path: str) -> bool:
    """Whether a config path says only where things are and run, or how fast they are made."""
    return not PLACES.isdisjoint((path, path.partition(".")[0]))


def decides_results(path: str) -> bool:
    """Whether what a config path says is the experiment, and not its place, or what a command does with it."""
    return path.partition(".")[0] in EXPERIMENT_SECTIONS and not is_place(path)


def mlruns_dir(config: Config) -> Path:
    """paths.mlruns as an absolute path."""
    return (project_root() / expanded(config.paths.mlruns, "paths.mlruns")).resolve()


def cache_dir(config: Config) -> Path:
    """paths.cache as an absolute path."""
    return (project_root() / expanded(config.paths.cache, "paths.cache")).resolve()
