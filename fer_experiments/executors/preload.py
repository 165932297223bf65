"""Imported by the process that workers are forked from: the libraries that they have in common."""

import os
from contextlib import suppress
from importlib import import_module

from fer_experiments.quiet import importing, own_process, silenced

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
own_process()
libraries = ["mlflow.store.tracking.sqlalchemy_store", "sklearn.metrics", "matplotlib.figure"]
if os.environ["KERAS_BACKEND"] == "tensorflow":  # JAX has threads, of which a fork has none
    libraries.append("keras")
with silenced(), importing("mlflow"):
    for library in libraries:
        with suppress(Exception):  # the call that needs it will say why
            import_module(library)
    with suppress(Exception):  # with the first model it saves, MLflow looks at all that is installed
        import_module("mlflow.utils.requirements_utils").warn_dependency_requirement_mismatches(["numpy"])
