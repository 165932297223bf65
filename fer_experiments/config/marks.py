"""What the fields of the schema say of themselves."""

from __future__ import annotations

from dataclasses import field
from typing import Any

# What a section or a field is part of: of the experiment, if nothing else is said. `parts` reads it.
PREPARED = "prepared"  # sections: what data and features are made of
FITTED = "fitted"  # sections: what a fit on them is made of
TASK = "task"  # sections: what a command does with experiments
PLACE = "place"  # where things lie and run, and how fast they are made: changes no result
BUDGET = "budget"  # when a sweep ends, or that it begins anew: changes no trial's result
ASIDE = "aside"  # a label, or what is done with the result

AUTO = "auto"  # what is decided once for all that stands on it


def given(default: Any, **marks: Any) -> Any:
    """A field and what it says of itself; `checks`, `overrides` and `parts` read it.

    choices: it is one of these. options: its name is that of a YAML in this folder of conf/. subset: it is a list out
    of these; always: one that is in it. above, least, below, most: bounds, which hold for each number of a list. part:
    see above. fixed: why a sweep cannot search it. of_training: it touches training images alone. younger: what was so
    before it, in sweeps that go on and in records that are read. undecided: the value that no trial can be of. several:
    taken from a command line as it stands, as a path or an address is; whether a comma in it parts two of a multirun.
    declared: said by the YAML of that group alone, never recorded. in_paths: folders and files are called by it.
    """
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=marks)
    return field(default=default, metadata=marks)


def choice(default: str | int, *choices: str | int, **marks: Any) -> Any:
    """A field that is one of the choices."""
    return given(default, choices=choices, **marks)


def literal(default: str | None, *, several: bool = True, **marks: Any) -> Any:
    """A field whose value is taken from a command line as it stands; several: in a multirun a comma parts two."""
    return given(default, several=several, **marks)


def section(kind: type, part: str) -> Any:
    """A field that holds a section."""
    return field(default_factory=kind, metadata={"part": part})
