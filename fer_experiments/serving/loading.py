"""A registered model in use: predictions for pictures, over HTTP, and in the formats of other runtimes."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fer_experiments import tracking
from fer_experiments.backbones.hub import how_to_install, is_installed
from fer_experiments.config import Config, cache_dir
from fer_experiments.config.commands import command, model_words
from fer_experiments.errors import UserError, first_line
from fer_experiments.files import temporary_folder
from fer_experiments.quiet import importing, silenced
from fer_experiments.terminal import say, shown
from fer_experiments.tracking import Store, digests, models

if TYPE_CHECKING:
    from fer_experiments.tracking.classifier import FaceClassifier
    from fer_experiments.tracking.models import Version


def find_model(config: Config, which: str) -> tuple[Version, Path]:
    """The version of fer-<data.task> with this alias or number, and the folder of its files.

    Files that another machine keeps are downloaded once, into paths.cache/models.

    Raises:
        UserError: no such model or version, files that are gone, a store that is lost, a full disk.
    """
    name = models.model_name(config.data)
    store = tracking.connect_existing(config)
    with tracking.said_in_a_line(store):
        version = models.find_version(store, name, which)
        if version is None:
            raise UserError(_missing(config, store, name, which))
        return version, _fetch(store, version, cache_dir(config) / "models")


def load_model(config: Config, which: str) -> tuple[Version, FaceClassifier]:
    """What `find_model` finds, ready to be called.

    Raises:
        UserError: what `find_model` raises, and files that are no model of this program.
    """
    version, folder = find_model(config, which)
    with loading(config, version, folder):
        return version, models.load_classifier(folder)


@contextmanager
def loading(config: Config, version: Version, folder: Path) -> Iterator[None]:
    """Imports Keras for what loads the model's files, keeps warnings back, and says what fails in a line.

    Raises:
        UserError: files that are no model of this program.
    """
    with silenced(), importing("keras"):  # lines that TensorFlow writes when it is imported
        import keras  # noqa: F401
    try:
        with warnings.catch_warnings(record=True):  # MLflow would have type hints, with which it reads lists slowly
            yield
    except Exception as error:
        if "keras_hub" in str(error) and not is_installed():
            raise UserError(
                f"{version.uri}: its backbone is a preset of KerasHub, which is not installed; {how_to_install()}"
            ) from error
        back = command("rollback", *model_words(config.data), config=config)
        remedy = f"restore it, or go back to the one before with `{back}`"
        raise UserError(
            f"{version.uri}: {folder} cannot be loaded ({first_line(error, 200, named=True)}); {remedy}"
        ) from error


def _missing(config: Config, store: Store, name: str, which: str) -> str:
    promote = command("promote", config=config)
    if known := models.versions(store, name):
        return (
            f"{name} has no version {which}; it has {models.told(known)}: choose with version=, or `{promote}` another"
        )
    names = [n.removeprefix(models.PREFIX) for n in models.model_names(store) if models.versions(store, n)]
    tasks = ", ".join("data=demo" if name == "demo" else f"data.task={name}" for name in names)
    others = f"; there are models of {tasks}" if names else ""
    return f"no model {name} in {store}: `{promote}` registers one{others}"


def _may_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        return True
    except OSError:
        return False


def _fetch(store: Store, version: Version, cache: Path) -> Path:
    """The folder of a version's files: in place if they are on this machine, else in the cache, there whole or not.

    Where the cache may only be read, they are this process's own until its end.
    """
    # With its run: another server has another version of this name and number.
    kept = cache / f"{version.name}-{version.number}-{version.run_id[:8]}"
    if kept.is_dir():
        try:
            models.check_files(store, version, kept)
            return kept
        except UserError:
            if digests.TAG not in version.tags or models.is_here(store, version) or not _may_write(cache):
                raise
            say(f"{shown(kept)}: this copy is not what was registered, which is asked for again", sys.stderr)
            aside = kept.with_name(f"{kept.name}.{os.getpid()}.old")
            with suppress(OSError):
                kept.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
    if not models.is_here(store, version) and not _may_write(cache):
        until_exit = ExitStack()
        atexit.register(until_exit.close)
        return models.fetch_model(store, version, until_exit.enter_context(temporary_folder("fer-model-")))
    unfinished = kept.with_name(f"{kept.name}.{os.getpid()}.part")
    try:
        folder = models.fetch_model(store, version, unfinished)
        if not folder.is_relative_to(unfinished):
            return folder
        try:
            folder.rename(kept)
        except OSError:
            if not kept.is_dir():  # else another process was faster
                raise
        return kept
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
