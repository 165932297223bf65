"""What goes on a run."""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_experiments import ambient, environment
from fer_experiments.config import TRAIN_VAL, project_root
from fer_experiments.tracking.processes import same_machine
from fer_experiments.tracking.store import Store, client_of

if TYPE_CHECKING:
    import keras
    import pandas as pd
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

    from fer_experiments.data import Dataset

PARAM_LENGTH = 6000  # MLflow refuses longer ones


@dataclass(frozen=True)
class Run:
    """An open run, and the id of the one that it is nested under.

    Artifact paths are relative to the run's artifacts, with forward slashes.
    """

    store: Store
    id: str
    parent: str | None = None

    @property
    def _client(self) -> MlflowClient:
        return client_of(self.store)

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric that is recorded by now."""
        return dict(self._client.get_run(self.id).data.metrics)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Params the run does not have yet (MLflow: they cannot change); all but strings as JSON."""
        from mlflow.entities import Param

        known = self._client.get_run(self.id).data.params
        texts = {_key(k): param_of(v) for k, v in params.items()}
        new = [Param(k, text) for k, text in texts.items() if k not in known]
        self._client.log_batch(self.id, params=new)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Metrics by name, at one step."""
        self._log_metrics([(name, value, step) for name, value in metrics.items()])

    def log_epochs(self, history: pd.DataFrame) -> None:
        """Every column of `history` as a series; its index is the step (the epoch, from 0)."""
        epochs = [int(epoch) for epoch in history.index.to_numpy()]
        self._log_metrics([(str(c), v, step) for c in history for step, v in zip(epochs, history[c], strict=True)])

    def _log_metrics(self, values: list[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        # MLflow stores an infinity as 1.8e308, which no axis survives.
        finite = [(n, float(v) if math.isfinite(v) else math.nan, s) for n, v, s in values]
        # One call: log_batch splits at MLflow's limits, and is 60 times faster than a call a value.
        self._client.log_batch(self.id, metrics=[Metric(_key(n), v, now, s) for n, v, s in finite])

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Tags by name, as strings."""
        from mlflow.entities import RunTag

        self._client.log_batch(self.id, tags=[RunTag(k, str(v)) for k, v in tags.items()])

    def describe(self, markdown: str) -> None:
        """The text the UI shows at the top of the run."""
        self.set_tags({"mlflow.note.content": markdown})

    def log_text(self, text: str, path: str) -> None:
        """A text file."""
        self._client.log_text(self.id, text, path)

    def log_json(self, content: Any, path: str) -> None:
        """A JSON file; NumPy numbers and arrays, sets and paths are written as what they stand for."""
        self.log_text(json.dumps(content, indent=2, ensure_ascii=False, default=_plain) + "\n", path)

    def log_csv(self, table: pd.DataFrame, path: str) -> None:
        """A CSV file; the index is a column of it when it has a name."""
        self.log_text(table.to_csv(index=table.index.name is not None), path)

    def log_figure(self, figure: Figure, path: str) -> None:
        """A picture, as a PNG."""
        from fer_experiments.evaluation.style import png

        self.log_bytes(png(figure), path)

    def log_file(self, file: Path, path: str) -> None:
        """A copy of a file; the last part of `path` is its new name."""
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / Path(path).name
            shutil.copyfile(file, target)
            self._client.log_artifact(self.id, str(target), str(Path(path).parent) if "/" in path else None)

    def log_folder(self, folder: Path, path: str) -> None:
        """A copy of a folder."""
        self._client.log_artifacts(self.id, str(folder), path)

    def log_bytes(self, content: bytes, path: str) -> None:
        """A file with this content."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / Path(path).name
            file.write_bytes(content)
            self.log_file(file, path)

    def log_dataset(self, dataset: Dataset) -> None:
        """What the run trains and validates on as its inputs, by fingerprint; no pixels are copied."""
        from mlflow.entities import Dataset as Lineage
        from mlflow.entities import DatasetInput, InputTag

        source = json.dumps({"uri": dataset.source})
        inputs = []
        # MLflow keeps one of several inputs with the same name and digest, so the split is part of the name.
        splits = [("train" if len(dataset.val) else TRAIN_VAL, "training", dataset.train)]
        splits += [("val", "validation", dataset.val)] if len(dataset.val) else []
        for split, context, rows in splits:
            profile = json.dumps({"images": len(rows), "classes": dataset.counts.get(split, {})})
            lineage = Lineage(f"{dataset.task}/{split}", dataset.fingerprint[:36], "local", source, profile=profile)
            inputs.append(DatasetInput(lineage, [InputTag("mlflow.data.context", context)]))
        self._client.log_inputs(self.id, inputs)

    def log_environment(self, folder: str = "environment") -> None:
        """A folder: versions, hardware, variables, uncommitted changes, and the lock file if it is there.

        A run that is nested has that of the one above it, but for the variables of a process of its own, unless it is
        on another machine: then all but the lock file.
        """
        if self.parent is not None:
            tags = self._client.get_run(self.id).data.tags
            own, driver = tags.get("fer.process", ""), tags.get("fer.driver", "")
            if same_machine(own, driver):
                if own != driver:
                    self.log_json(ambient.variables(), f"{folder}/variables.json")
                return
        self.log_json(environment.versions(), f"{folder}/versions.json")
        self.log_json(environment.hardware(), f"{folder}/hardware.json")
        self.log_json(ambient.variables(), f"{folder}/variables.json")
        lock = project_root() / "requirements.lock"
        if self.parent is None and lock.is_file():
            self.log_file(lock, f"{folder}/{lock.name}")
        git = environment.git_state(project_root())
        if git.dirty:
            self.log_text(git.diff, f"{folder}/git.diff")

    def log_head(self, model: keras.Model, dtype: str = "float16") -> None:
        """A trained head as the artifact model/, for `mlflow.keras.load_model("runs:/<id>/model")`.

        Its signature is the model's inputs with `dtype`, that of stored features, as a signature is strict about it.
        The optimizer's state, twice the size of the weights, is left out.
        """
        import keras
        import mlflow.keras
        import numpy as np
        from mlflow.models import ModelSignature
        from mlflow.types.schema import Schema, TensorSpec

        def schema(tensors: list[Any], kind: str | None = None) -> Schema:
            specs = [((-1, *t.shape[1:]), np.dtype(kind or t.dtype), t.name) for t in tensors]
            return Schema([TensorSpec(d, s, name if len(specs) > 1 else None) for s, d, name in specs])

        # Given, because inferring them takes MLflow 19 seconds; as a conda environment, because the other way it warns
        # of every environment without pip.
        conda = environment.conda("head", model)
        with tempfile.TemporaryDirectory() as folder:
            mlflow.keras.save_model(
                keras.Model(model.input, model.output, name=model.name),
                f"{folder}/model",
                signature=ModelSignature(schema(model.inputs, dtype), schema(model.outputs)),
                conda_env=conda,
            )
            self.log_folder(Path(folder) / "model", "model")


def param_of(value: Any) -> str:
    """A value as it is recorded among params."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_plain)
    return text[:PARAM_LENGTH]


def _key(name: str) -> str:
    """A name MLflow takes for a param or a metric."""
    return re.sub(r"[^/\w.\- :]", "_", name)[:250]


def _plain(value: Any) -> Any:
    """What `json` cannot write, as what it can: NumPy arrays and numbers, sets; anything else as text."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
