"""What surrounds a process and must change no result: pinned or dropped when the package is imported, or recorded.

What decides numbers is in the config. Keras reads `keras.json`, and libraries read variables, behind its back.
"""

from __future__ import annotations

import codecs
import io
import locale
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from fer_experiments.errors import UserError

BACKENDS = ("tensorflow", "jax")

# Variables that cut fits short, change the precision of every operation, or make a worker of KerasTuner's out of this
# process: what they would do is in the config, or not wanted.
DROPPED = (
    "KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED",
    "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID",
    "JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION", "JAX_DEFAULT_DTYPE_BITS", "JAX_NUMPY_DTYPE_PROMOTION",
    "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "TF_SET_ONEDNN_FPMATH_MODE",
)  # fmt: skip

# Variables that change rounding, or where and on how many threads work is done: a user's to set, so a run records them.
RECORDED = (
    "KERAS_BACKEND", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
    "TF_ENABLE_ONEDNN_OPTS", "TF_DETERMINISTIC_OPS", "TF_CUDNN_DETERMINISTIC", "TF_XLA_FLAGS", "XLA_FLAGS",
    "NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA",
    "TF_FORCE_GPU_ALLOW_GROWTH", "JAX_PLATFORMS", "PYTHONHASHSEED",
)  # fmt: skip

# An empty one counts as unset: it is what a shell makes of a variable that it does not know.
EMPTY_IS_UNSET = ("FER2013", "FER_TRACKING", "KERAS_HOME", "KERAS_BACKEND")

# What a tracking server knows us by. MLflow reads it here; what this process starts would show it in /proc and in logs.
SECRET = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


@contextmanager
def without_secrets() -> Iterator[None]:
    """The environment of processes that the block starts; while it lasts, this process has no password either."""
    kept = {name: os.environ.pop(name) for name in SECRET if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def open_environment() -> dict[str, str]:
    """That environment, for a program that is started while others of our threads need the password."""
    return {name: value for name, value in os.environ.items() if name not in SECRET}


def pin() -> None:
    """Makes this process, and those that it starts, independent of `keras.json` and of the variables above.

    Called when the package is imported, in worker processes too; Keras may be imported before or after.
    """
    for name in DROPPED:
        os.environ.pop(name, None)
    for name in EMPTY_IS_UNSET:
        if not os.environ.get(name):
            os.environ.pop(name, None)
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "config"):
        os.environ["KERAS_BACKEND"] = keras.config.backend()
        _pin_keras(keras)
        return
    os.environ.setdefault("KERAS_BACKEND", BACKENDS[0])  # else keras.json may name one
    sys.meta_path.insert(0, _KerasFinder())


def check_surroundings() -> None:
    """Refuses a folder that is gone, and a backend of Keras that is not supported or not installed; imports nothing.

    Raises:
        UserError: with the remedy.
    """
    try:
        os.getcwd()  # noqa: PTH109  not on the path to any file
    except FileNotFoundError:
        raise UserError("the folder that this runs in is gone; change to another") from None
    name = os.environ["KERAS_BACKEND"]
    if name not in BACKENDS:
        raise UserError(f"KERAS_BACKEND={name}: not supported; choose one of {', '.join(BACKENDS)}, or unset it")
    if find_spec(name) is None:
        raise UserError(f"KERAS_BACKEND={name}: {name} is not installed; pip install {name}, or unset KERAS_BACKEND")


def pin_warnings() -> None:
    """Python's own filters, here and in child processes: under `-W error` a library's advice would end a run."""
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)
    sys.warnoptions.clear()  # which children of multiprocessing are given
    os.environ.pop("PYTHONWARNINGS", None)


def speak_utf8() -> None:
    """Starts this program anew in Python's UTF-8 mode where the locale has files and names in another encoding.

    A terminal that cannot show a character is shown its code.
    """
    encodings = {codecs.lookup(name).name for name in (locale.getpreferredencoding(False), sys.getfilesystemencoding())}
    if encodings != {"utf-8"} and os.environ.get("PYTHONUTF8") != "1" and os.name == "posix":
        os.environ["PYTHONUTF8"] = "1"
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def keras_home() -> Path:
    """The folder of Keras' settings and of the weights that it downloads."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()


def variables() -> dict[str, str]:
    """Those of RECORDED that are set, with their values."""
    return {name: os.environ[name] for name in RECORDED if name in os.environ}


class _KerasFinder(MetaPathFinder):
    """Finds Keras as it would be found without it, and pins it once it is imported, whoever imports it."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != "keras":
            return None
        sys.meta_path.remove(self)
        spec = find_spec("keras")
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_pin(module: ModuleType) -> None:
            check_surroundings()
            try:
                with _without_jax():
                    execute(module)
            except (AttributeError, OSError, TypeError, ValueError) as error:
                settings = keras_home() / "keras.json"
                if not settings.exists():
                    raise
                said = " ".join(str(error).split())
                raise UserError(f"{settings}: Keras does not take it ({said}); mend or delete it") from error
            _pin_keras(module)

        spec.loader.exec_module = execute_and_pin  # type: ignore[method-assign]
        return spec


@contextmanager
def _without_jax() -> Iterator[None]:
    """Keeps JAX out of the import of another backend: TensorFlow Lite would import it, a second for nothing."""
    hidden = os.environ["KERAS_BACKEND"] != "jax" and "jax" not in sys.modules
    if hidden:
        sys.modules["jax"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        yield
    finally:
        if hidden:
            del sys.modules["jax"]


def _pin_keras(keras: Any) -> None:
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")
