"""The rooms of the package: each imports only from rooms further down, inside functions too, and none is crowded."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import fer_experiments

PACKAGE = Path(fer_experiments.__file__).parent
ROOMS = [  # from the top
    *("cli", "serving", "report", "registry", "search", "experiment", "doctor", "training", "features", "tracking"),
    *("evaluation", "backbones", "data", "executors", "config"),
    *("files", "environment", "termination", "ambient", "quiet", "errors", "terminal"),
]


def name_of(file: Path) -> str:
    """Without the package's name; a folder's __init__ has the folder's."""
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(file): file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py"}


def imports(file: Path) -> Iterator[str]:
    """The modules of the package that a file names in imports, at its top and in functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [m if m.removeprefix("fer_experiments.") in MODULES else str(node.module) for m in modules]
        else:
            continue
        yield from (name.removeprefix("fer_experiments.") for name in names if name.startswith("fer_experiments."))


def test_no_import_goes_up():
    upwards = [
        f"{module} imports {other}"
        for module, file in MODULES.items()
        for other in imports(file)
        if ROOMS.index(other.split(".")[0]) < ROOMS.index(module.split(".")[0])
    ]
    assert not upwards


def test_there_are_no_circles():
    TopologicalSorter({module: set(imports(file)) - {module} for module, file in MODULES.items()}).prepare()


def test_the_libraries_stay_in_their_rooms():
    homes = {
        "mlflow": "tracking",
        "keras_tuner": "search",
        "optuna": "search",
        "hydra": "config",
        "omegaconf": "config",
    }
    strays = [
        f"{module} imports {name}"
        for module, file in MODULES.items()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        if homes.get(name.split(".")[0], module.split(".")[0]) != module.split(".")[0]
    ]
    assert not strays


def test_no_client_of_mlflow_leaves_its_room():
    strays = [
        f"{module} names {name}"
        for module, file in MODULES.items()
        if module.split(".")[0] != "tracking"
        for name in ("client_of", "MlflowClient", "._client")
        if name in file.read_text(encoding="utf-8")
    ]
    assert not strays


def test_no_room_is_crowded():
    flat = [file.name for file in PACKAGE.glob("*.py") if file.name != "__init__.py"]
    assert len(flat) <= 9, flat
    long = {module: count for module, file in MODULES.items() if (count := len(file.read_text().splitlines())) > 300}
    assert not long


def test_what_is_printed_is_made_fit_to_be_shown():
    strays = [
        f"{module}:{node.lineno}"
        for module, file in MODULES.items()
        if module != "terminal"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id == "print"
    ]
    assert not strays


def test_every_test_file_has_a_name_of_its_own():
    names = [file.name for file in Path(__file__).parent.rglob("test_*.py")]
    assert len(names) == len(set(names))  # pytest imports them by it
