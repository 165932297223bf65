"""Features on the way to machines that may not have them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from fer_experiments.errors import UserError
from fer_experiments.executors.executor import Executor, Shared
from fer_experiments.features.cache import FeatureSet
from fer_experiments.features.shards import read_manifest, write_manifest
from fer_experiments.files import write_atomically


@dataclass(frozen=True)
class Travelling:
    """Features on the way to a machine that may not have them: by view, the manifest, and content by file name."""

    features: FeatureSet
    views: dict[str, tuple[dict[str, Any], dict[str, Shared]]]

    def unpack(self, cache: Path) -> FeatureSet:
        """The features in that cache, what is missing written to it."""
        path = cache / "features" / self.features.path.name
        path.mkdir(parents=True, exist_ok=True)
        with FileLock(path / "lock"):
            for view, (manifest, files) in self.views.items():
                if read_manifest(path / view) is not None:
                    continue
                (path / view).mkdir(exist_ok=True)
                for name, content in files.items():
                    write_atomically(path / view / name, partial(_write, content.get()))
                own = {key: value for key, value in manifest.items() if key not in ("layers", "starts", "files")}
                write_manifest(path / view, own, manifest["starts"])  # its files have other times here
        return replace(self.features, path=path)


def pack(features: FeatureSet, executor: Executor) -> Travelling:
    """Gives the files of features to an executor whose workers are on other machines.

    Raises:
        UserError: features that changed since they were read.
    """
    views = {}
    for view in features.views:
        manifest = read_manifest(features.path / view)
        if manifest is None:
            raise UserError(f"{features.path / view}: changed or gone since it was read; run the same command again")
        names = [file.name for file in (features.path / view).iterdir() if file.name[0].isdigit()]
        views[view] = (manifest, {name: executor.share((features.path / view / name).read_bytes()) for name in names})
    return Travelling(features, views)


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)
