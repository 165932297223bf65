"""Published systems: what others have reported, one YAML in conf/published each."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import get_args, get_type_hints

from fer_experiments.config import options, yaml_of
from fer_experiments.errors import UserError

GROUP = "published"


@dataclass(frozen=True)
class Published:
    """A system as its source reports it; None where that says nothing.

    images: of the split that the accuracy is of. chosen: whether anything was chosen on that split, as far as is
    known. training_s: seconds. parameters: in all; trainable: those that were trained. mb: 10^6 bytes on disk. ms: for
    one image.
    """

    name: str
    classes: int
    accuracy: float
    split: str
    chosen: str
    source: str
    images: int | None = None
    training_s: float | None = None
    hardware: str | None = None
    epochs: int | None = None
    parameters: int | None = None
    trainable: int | None = None
    mb: float | None = None
    ms: float | None = None


def published(name: str) -> Published:
    """What conf/published/<name>.yaml says.

    Raises:
        UserError: a key that is missing, unknown or no such value.
    """
    said, where = yaml_of(GROUP, name), f"conf/{GROUP}/{name}.yaml"
    types = get_type_hints(Published)
    if unknown := [key for key in said if key not in types]:
        raise UserError(f"{where}: {unknown[0]} is no key of it; take {', '.join(types)}")
    for field in fields(Published):
        value = said.get(field.name)
        takes = get_args(types[field.name]) or (types[field.name],)
        if not isinstance(value, (*takes, int) if float in takes else takes):
            raise UserError(f"{where}: {field.name}={value}: must be a {takes[0].__name__}")
    made = Published(**said)
    if not 0 <= made.accuracy <= 1:
        raise UserError(f"{where}: accuracy={made.accuracy}: must be a share, from 0 to 1")
    return made


def published_names() -> list[str]:
    """Of all systems that there is a YAML of."""
    return options(GROUP)
