"""`fer data`: what the data are, and what cleaning took away, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from matplotlib.figure import Figure

from fer_experiments.config import Config, cache_dir
from fer_experiments.data import Dataset, describe, load_dataset
from fer_experiments.evaluation.faces import near_twins, sample_faces
from fer_experiments.evaluation.style import png
from fer_experiments.files import write_atomically
from fer_experiments.terminal import say, shown


def show_data(config: Config) -> None:
    """Prints the counts, what cleaning removed and why, and the fingerprint; writes sheets under paths.cache."""
    dataset = load_dataset(config.data, smoke=config.training.smoke, cache=cache_dir(config))
    say(describe(dataset))
    sheet = cache_dir(config) / "data" / f"{config.data.task}-{dataset.fingerprint[:8]}.png"
    sheets: dict[str, tuple[Path, Callable[[Dataset], Figure]]] = {"sample faces": (sheet, sample_faces)}
    if dataset.twins:
        sheets["near twins"] = (sheet.with_name(f"{sheet.stem}-near-twins.png"), near_twins)
    for name, (path, draw) in sheets.items():
        try:
            _write(path, png(draw(dataset)))
            say(f"{name}: {shown(path)}")
        except OSError as error:
            say(
                f"{name}: not written, {shown(path.parent)}: {error.strerror or error}; paths.cache=<folder> is another"
            )


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / "lock"):
        write_atomically(path, lambda file: file.write(content))
