"""Which version is in use: moving the aliases, going back, and the list of all."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from fer_experiments import tracking
from fer_experiments.config import Config, mlruns_dir
from fer_experiments.config.commands import command
from fer_experiments.errors import UserError
from fer_experiments.files import holding
from fer_experiments.terminal import table
from fer_experiments.tracking import Store, models
from fer_experiments.tracking.models import CHAMPION, PREVIOUS, Version

TOLD = ("test_accuracy", "test_log_loss", "backbone_name", "from", "user")  # tags that the list shows


def only_one_promotes(config: Config, name: str) -> AbstractContextManager[None]:
    """One promotion or rollback of a model at a time on this machine; see `holding`."""
    lock = mlruns_dir(config) / "models" / f"{name}.lock"
    return holding(lock, f"{name}: another process is promoting or rolling back")


def crown(store: Store, version: Version, before: Version | None) -> None:
    """Makes a version the champion, and the one before it the previous one.

    The previous one is set first: a kill in between leaves the old champion, under both aliases.

    Raises:
        UserError: the champion is no more the one that this version was compared with; nothing has moved then.
    """
    now = models.find_version(store, version.name, CHAMPION)
    if (now and now.number) != (before and before.number):
        was, is_ = (f"version {v.number}" if v else "none" for v in (before, now))
        raise UserError(
            f"{version.name}: the champion was {was} when this promotion compared itself, and is {is_} now; another "
            "promotion was faster: give the same command again (its refits are on record)"
        )
    if before is not None:
        models.set_alias(store, before, PREVIOUS)
    models.set_alias(store, version, CHAMPION)


def rollback(config: Config, number: str | None = None) -> str:
    """Swaps champion and previous, or makes the given version the champion; returns what happened, in a line.

    Raises:
        UserError: nothing to go back to, or a version that is not there or cannot be loaded.
    """
    store = tracking.connect_existing(config, write=True)
    name, listed = models.model_name(config.data), command("models", config=config)
    with only_one_promotes(config, name):
        before = models.find_version(store, name, CHAMPION)
        target = models.find_version(store, name, number or PREVIOUS)
        if number and target is None:
            raise UserError(f"version={number}: {name} has no such version; `{listed}` lists them")
        if target is None:
            raise UserError(f"{name}: {_nothing_previous(config, store, models.versions(store, name))}")
        if before is not None and target.number == before.number:
            raise UserError(f"{name}: version {target.number} is the champion already; `{listed}` lists the others")
        _check_loads(store, target)
        crown(store, target, before)
    was = f", version {before.number} is previous" if before else ""
    return f"{name}: version {target.number} is the champion again{was}; restart what serves it"


def _nothing_previous(config: Config, store: Store, known: Sequence[Version]) -> str:
    """Why there is no previous model to go back to, and what to do."""
    if not known:
        return f"nothing is registered in {store}; `{command('promote', config=config)}` comes first"
    if len(known) == 1:
        return f"version {known[0].number} is the only one; there is nothing to go back to"
    return f"no version has the alias {PREVIOUS}; choose with version=, it has {models.told(known)}"


def _trust(config: Config, number: str | None) -> str:
    """Records what the files of a version are now, and returns whose they are.

    Raises:
        UserError: no version said, no such version, files that are gone.
    """
    store = tracking.connect_existing(config, write=True)
    name, listed = models.model_name(config.data), command("models", config=config)
    version = models.find_version(store, name, number) if number else None
    if number is None:
        which = "version=<number or alias> and data.task=<its task> (of demo faces data=demo)"
        raise UserError(f"models trust: say {which}; `{listed}` lists them")
    if version is None:
        raise UserError(f"version={number}: {name} has no such version; `{listed}` lists them")
    with tempfile.TemporaryDirectory() as folder:
        found = models.trust(store, version, Path(folder))
    run = tracking.find_run(store, version.run_id)
    whose = run.tags.get("mlflow.user", "unknown") if run else "unknown"
    moment = datetime.fromtimestamp(version.created / 1000).astimezone()
    lines = [
        f"{version.uri}: registered {moment:%Y-%m-%d %H:%M}, of run {version.run_id} by {whose}, in {version.source}"
    ]
    lines += [f"  {digest[:16]}  {path}" for path, digest in found.items()]
    return "\n".join([*lines, "recorded: it is loaded from now on while its files are these"])


def _check_loads(store: Store, version: Version) -> None:
    with tempfile.TemporaryDirectory() as folder:
        models.load_version(store, version, Path(folder))


def list_models(config: Config, trusting: str | None = None, number: str | None = None) -> str:
    """The registered models as a table, the newest version first; or what `trust` does."""
    if trusting is not None:
        return _trust(config, number)
    store = tracking.connect_existing(config)
    rows = [["model", "version", "alias", "registered", "test accuracy", "log loss", "backbone", "from", "by"]]
    for name in models.model_names(store):
        for version in models.versions(store, name):
            tags = version.tags
            moment = datetime.fromtimestamp(version.created / 1000).astimezone()
            told = (tags.get(f"fer.{key}", "") for key in TOLD)
            rows.append([name, str(version.number), ", ".join(version.aliases), f"{moment:%Y-%m-%d %H:%M}", *told])
    return table(rows) if rows[1:] else f"no models in {store}; `{command('promote', config=config)}` registers one"
