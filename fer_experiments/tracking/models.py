"""The MLflow model registry: packages of models, their versions, and the aliases that say which one is in use."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments import environment
from fer_experiments.config import DataConfig
from fer_experiments.config.commands import command, override
from fer_experiments.errors import UserError, first_line
from fer_experiments.quiet import silenced
from fer_experiments.tracking import digests
from fer_experiments.tracking.moved import present
from fer_experiments.tracking.outages import is_lost
from fer_experiments.tracking.queries import every
from fer_experiments.tracking.store import Store, client_of

if TYPE_CHECKING:
    import keras
    from fastapi import FastAPI
    from mlflow import MlflowClient

    from fer_experiments.tracking.classifier import FaceClassifier

UNCERTAIN = "uncertain"  # the label where a model does not answer
CHAMPION, PREVIOUS = "champion", "previous"
PREFIX = "fer-"
LOADED = ("MLmodel", "artifacts/network.keras", "artifacts/classes.json")  # of a version's files; no other one is read


@dataclass(frozen=True)
class Version:
    """A version of a registered model. created: milliseconds since 1970. source: where its files are."""

    name: str
    number: int
    run_id: str
    source: str
    created: int
    tags: dict[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def uri(self) -> str:
        """As MLflow names it."""
        return f"models:/{self.name}/{self.number}"


def model_name(data: DataConfig) -> str:
    """The registered model of a task: fer-<task>; of drawn demo faces fer-demo, whatever they are called."""
    return PREFIX + ("demo" if data.source == "demo" else re.sub(r"[/:]", "-", data.task))


def save_classifier(network: keras.Model, classes: Sequence[str], folder: Path, threshold: float = 0.0) -> None:
    """Writes an MLflow model: uint8 pixels [n, h, w] in; label and the probability of each class out.

    network: from uint8 pixels to probabilities [n, classes]; see `assemble`. folder: must not exist. threshold: see
    `labels`.
    """
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, Schema, TensorSpec

    shape = tuple(-1 if side is None else side for side in network.input_shape)
    columns: list[ColSpec | TensorSpec] = [ColSpec("string", "label")]
    columns += [ColSpec("float", f"probability_{name}") for name in classes]
    with tempfile.TemporaryDirectory() as parts, silenced():  # of MLflow's advice on type hints and examples
        network.save(Path(parts) / "network.keras")
        (Path(parts) / "classes.json").write_text(written_answers(classes, threshold), encoding="utf-8")
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(Path(__file__).with_name("classifier.py")),
            artifacts={"network": f"{parts}/network.keras", "classes": f"{parts}/classes.json"},
            signature=ModelSignature(Schema([TensorSpec(np.dtype("uint8"), shape)]), Schema(columns)),
            conda_env=environment.conda("fer", network, "pandas"),
        )


def written_answers(classes: Sequence[str], threshold: float) -> str:
    """The text of classes.json: what a model answers with. In one file: what is added to a version has no digest."""
    names = list(classes)
    return json.dumps({"classes": names, "threshold": threshold, "uncertain": UNCERTAIN} if threshold else names)


def read_answers(text: str) -> tuple[list[str], float]:
    """Classes and threshold out of a classes.json; a list, as in older models, has no threshold."""
    said = json.loads(text)
    return (said["classes"], said["threshold"]) if isinstance(said, dict) else (said, 0.0)


def labels(probabilities: np.ndarray, classes: Sequence[str], threshold: float) -> list[str]:
    """The most probable class of each row, UNCERTAIN where its probability is below the threshold."""
    sure = probabilities.max(axis=1) >= threshold
    return [classes[i] if s else UNCERTAIN for i, s in zip(probabilities.argmax(axis=1), sure, strict=True)]


def load_classifier(folder: Path) -> FaceClassifier:
    """The model in a folder that `save_classifier` wrote, as data: the code that is there beside it is not run."""
    with silenced():  # of MLflow's advice on type hints
        from fer_experiments.tracking.classifier import FaceClassifier

    classifier = FaceClassifier()
    classifier.load(folder / "artifacts" / "network.keras", folder / "artifacts" / "classes.json")
    return classifier


def load_version(store: Store, version: Version, folder: Path) -> FaceClassifier:
    """What `load_classifier` loads of what `fetch_model` fetches.

    Raises:
        UserError: what `fetch_model` raises; files that cannot be loaded here.
    """
    fetched = fetch_model(store, version, folder)
    try:
        return load_classifier(fetched)
    except Exception as error:  # of the zip, its JSON, Keras, or a package of its layers that is not installed
        said = first_line(error, 200, named=True)
        raise UserError(f"{version.uri}: cannot be loaded here ({said}); restore its files or packages") from error


def load_scoring(folder: Path) -> tuple[FaceClassifier, FastAPI]:
    """What `load_classifier` loads, and MLflow's own scoring server around it."""
    from mlflow.models import Model
    from mlflow.pyfunc import PyFuncModel, scoring_server

    classifier = load_classifier(folder)
    call = SimpleNamespace(predict=lambda given, params=None: classifier.predict(None, given))
    return classifier, scoring_server.init(PyFuncModel(Model.load(str(folder)), call))


def fetch_model(store: Store, version: Version, folder: Path) -> Path:
    """A version's files on this machine: where they are if they are on it, else downloaded into `folder`.

    Raises:
        UserError: they are gone, or are not what was registered; see `check_files`.
    """
    fetched = _fetch(store, version, folder)
    check_files(store, version, fetched)
    return fetched


def _fetch(store: Store, version: Version, folder: Path) -> Path:
    from mlflow.artifacts import download_artifacts

    source = present(store.uri, version.source)
    target = None if is_here(store, version) else str(folder)
    try:
        return Path(download_artifacts(source, dst_path=target, tracking_uri=store.uri))
    except Exception as error:
        if is_lost(error):
            raise
        raise UserError(
            f"{version.uri}: its files are gone from {source}; bring them back, or take another with version=<number>"
        ) from error


def told(versions: Sequence[Version]) -> str:
    """The first ten of these, with their aliases, on a line."""
    return ", ".join(" ".join([str(v.number), *(f"({alias})" for alias in v.aliases)]) for v in versions[:10])


def check_files(store: Store, version: Version, folder: Path) -> None:
    """Refuses a folder whose files are not what was registered: whoever may write there need not be whom one trusts.

    Raises:
        UserError: naming a file, or saying that nobody has recorded what they were.
    """
    recorded = version.tags.get(digests.TAG)
    if recorded is None:
        task = version.name.removeprefix(PREFIX)
        words = ["data=demo" if task == "demo" else override("data.task", task), *store.words()]
        remedy = f"`{command('models', 'trust', f'version={version.number}', *words)}` shows and records them"
        raise UserError(f"{version.uri}: nobody has recorded what its files were when it was registered; {remedy}")
    known = json.loads(recorded)
    new = [f"{name} has no digest, and is read" for name in LOADED if name not in known and (folder / name).exists()]
    if said := next(iter(new), None) or digests.changed(recorded, folder):
        raise UserError(f"{version.uri}: {said}; bring it back from a copy, or take another with version=<number>")


def trust(store: Store, version: Version, folder: Path) -> dict[str, str]:
    """Records what a version's files are now; returns their digests by path. folder: as of `fetch_model`."""
    found = digests.digests(_fetch(store, version, folder))
    client_of(store).set_model_version_tag(version.name, str(version.number), digests.TAG, json.dumps(found))
    return found


def is_here(store: Store, version: Version) -> bool:
    """Whether a version's files are on this machine already."""
    return present(store.uri, version.source).startswith(("file:", "/"))


def find_version(store: Store, name: str, which: str) -> Version | None:
    """The version with this alias or number, or None."""
    return next((v for v in versions(store, name) if which in (*v.aliases, str(v.number))), None)


def versions(store: Store, name: str) -> list[Version]:
    """The versions of a registered model, the newest first; empty when there is no such model."""
    client = client_of(store)
    model = _model(client, name)
    if model is None:
        return []
    aliases: dict[int, list[str]] = {}
    for alias, number in model.aliases.items():
        aliases.setdefault(int(number), []).append(alias)
    made = []
    for v in every(client.search_model_versions, f"name = '{name}'", max_results=200):
        number = int(v.version)
        of_it = tuple(sorted(aliases.get(number, ())))
        made.append(Version(name, number, v.run_id, v.source, v.creation_timestamp, dict(v.tags), of_it))
    return sorted(made, key=lambda v: -v.number)


def runs_of_versions(store: Store) -> set[str]:
    """The runs that a registered version was made in, of whatever name."""
    return {v.run_id for v in every(client_of(store).search_model_versions, "", max_results=200) if v.run_id}


def model_names(store: Store) -> list[str]:
    """The registered models of this program."""
    return sorted(m.name for m in every(client_of(store).search_registered_models, f"name LIKE '{PREFIX}%'"))


def add_version(
    store: Store, name: str, run_id: str, files: Mapping[str, str], tags: Mapping[str, str], description: str
) -> Version:
    """Registers the artifact model/ of a run as a new version, which no alias points at yet.

    files: their `digests` before they were logged.

    Raises:
        UserError: a server does not let this account.
    """
    from mlflow.exceptions import MlflowException

    client = client_of(store)
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    everything = {**tags, digests.TAG: json.dumps(dict(files))}
    try:
        if _model(client, name) is None:
            _create_model(client, name)
        made = client.create_model_version(name, source, run_id, everything, description=description)
    except MlflowException as error:
        if error.get_http_status_code() != 403 and "error code 403" not in str(error):
            raise
        raise UserError(
            f"{name}: {store} does not let this account register it ({first_line(error)}); its administrator can grant "
            f'EDIT on the registered_model "{name}", then give the same command again'
        ) from error
    return Version(name, int(made.version), run_id, str(made.source), made.creation_timestamp, everything)


def _create_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException:
        if _model(client, name) is None:  # else another process was faster
            raise


def drop_version(store: Store, version: Version) -> None:
    """Takes a version out of the registry, and its model with the last one; a server's stays: accounts have rights to
    its name."""
    client = client_of(store)
    client.delete_model_version(version.name, str(version.number))
    if not store.uri.startswith("http") and not versions(store, version.name):
        client.delete_registered_model(version.name)


def set_alias(store: Store, version: Version, alias: str) -> None:
    """Moves an alias to a version, in one transaction of the store."""
    client_of(store).set_registered_model_alias(version.name, alias, str(version.number))


def _model(client: MlflowClient, name: str) -> Any:
    """The registered model, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
