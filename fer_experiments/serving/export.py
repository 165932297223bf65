"""`fer export`: the registered model as a SavedModel, for ONNX Runtime or for OpenVINO, checked before it is kept."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_experiments.ambient import open_environment
from fer_experiments.backbones.hub_layers import mended
from fer_experiments.config import Config
from fer_experiments.config.folders import expanded
from fer_experiments.errors import UserError, first_line
from fer_experiments.terminal import Echo, say

if TYPE_CHECKING:
    import keras

# The largest difference of a probability from that of the registered model that rounding explains; docs/serving.md has
# what was measured.
TOLERANCE = 1e-4
NEEDED = {"savedmodel": (), "onnx": ("tf2onnx", "onnx", "onnxruntime"), "openvino": ("openvino",)}
FILES = {"savedmodel": ".", "onnx": "model.onnx", "openvino": "model.xml"}
OPSET = 18  # of ONNX: the newest that tf2onnx 1.17 knows
CLASSES = "classes.json"  # the names of the columns of what the model gives

# A fresh process that knows the other runtime, neither Keras nor this package: <model> <images> <probabilities>.
# One image alone and then the others: the number of images must be free.
FRESH = """
import sys
import numpy
{load}
images = numpy.load(sys.argv[2])
numpy.save(sys.argv[3], numpy.concatenate([call(images[:1]), call(images[1:])]))
"""
LOAD = {
    "savedmodel": """
import tensorflow
served = tensorflow.saved_model.load(sys.argv[1])
call = lambda x: served.serve(x).numpy()
""",
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
call = lambda x: session.run(None, {session.get_inputs()[0].name: x})[0]
""",
    # Left to itself OpenVINO computes in bfloat16 where the CPU can.
    "openvino": """
import openvino
compiled = openvino.compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
call = lambda x: compiled(x)[0].copy()
""",
}


def export(config: Config, form: str = "", output: str = "", echo: Echo = say, version: str = "champion") -> Path:
    """Writes the registered model for another runtime, and returns where.

    It takes uint8 pixels [n, h, w] and gives probabilities float32 [n, classes], as the registered one does; that they
    agree is checked in a fresh process before anything appears at `output`.

    Args:
        config: data.task says which model.
        form: savedmodel, onnx or openvino.
        output: a folder, which gets classes.json too; of onnx also a file that ends in .onnx.
        echo: takes each line.
        version: alias or number.

    Raises:
        UserError: an unknown form, a missing package, an output that exists, no such model, probabilities that differ,
            another backend than TensorFlow.
    """
    if not (form and output):
        raise UserError(f"say format=<one of {', '.join(NEEDED)}> and output=<path>")
    if form not in NEEDED:
        raise UserError(f"format={form}: choose one of {', '.join(NEEDED)}")
    target = expanded(output, "output").absolute()
    single = target.suffix == ".onnx" and form == "onnx"
    if target.suffix in (".onnx", ".xml", ".bin") and not single:
        raise UserError(f"output={output}: {form} is several files; name a folder")
    if missing := [name for name in NEEDED[form] if importlib.util.find_spec(name) is None]:
        install = f"{sys.executable} -m pip install {' '.join(missing)}"
        raise UserError(f"format={form} needs {', '.join(missing)}, not installed here: {install}")
    if os.environ["KERAS_BACKEND"] != "tensorflow":  # which jax2tf's graphs do not come through
        raise UserError(f"format={form}: TensorFlow writes it; give the same command with KERAS_BACKEND=tensorflow")
    _check_free(target)
    from fer_experiments.serving.loading import find_model, loading
    from fer_experiments.tracking import models

    found, source = find_model(config, version)
    with loading(config, found, source):
        classifier = models.load_classifier(source)
        network = mended(classifier.network)
    with _beside(target) as folder:
        images = check_images(classifier.size)
        expected = classifier.probabilities(images)
        network(images[:1])  # Keras exports no model that was never called
        _write(network, form, folder)
        (folder / CLASSES).write_text(json.dumps(classifier.classes), encoding="utf-8")
        path = str((folder / FILES[form]).resolve())
        got = predict_fresh(f"{form}: what was written", FRESH.format(load=LOAD[form]), [path], images)
        difference = np.abs(got.astype("float64") - expected).max() if got.shape == expected.shape else np.inf
        if not difference <= TOLERANCE:  # nan too
            raise UserError(
                f"{found.uri} as {form}: probabilities differ by up to {difference:.2g} (allowed: {TOLERANCE:g}) from "
                "the registered model's; nothing was written, another format= may do"
            )
        _check_free(target)
        if target.is_dir():
            target.rmdir()
        (folder / FILES[form] if single else folder).rename(target)
    echo(f"{target}: {found.uri} as {form}; columns {', '.join(classifier.classes)}")
    if classifier.threshold:
        echo(f"it gives probabilities alone: below {classifier.threshold:.4f} the registered model says uncertain")
    echo(f"largest difference of a probability on {len(images)} images: {difference:.2g}")
    return target


def predict_fresh(what: str, code: str, arguments: Sequence[str], images: np.ndarray) -> np.ndarray:
    """Probabilities [n, classes] of images, computed by Python code in a process of its own, as without this package.

    Args:
        what: is loaded there, for the message.
        code: finds in sys.argv the arguments, the file of the images (.npy), and the file for the probabilities.
        images: uint8 [n, h, w].

    Raises:
        UserError: the process fails; with the last line that it says.
    """
    import keras

    with tempfile.TemporaryDirectory() as folder:
        given, got = Path(folder) / "images.npy", Path(folder) / "probabilities.npy"
        np.save(given, images)
        # -P, and another folder: the checkout is not on the path by chance.
        command = [sys.executable, "-P", "-c", code, *arguments, str(given), str(got)]
        environment = {**open_environment(), "KERAS_BACKEND": keras.config.backend()}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise UserError(f"{what} cannot be used in a fresh process ({reason[:200]})")
        probabilities: np.ndarray = np.load(got)
        return probabilities


def check_images(size: tuple[int, int]) -> np.ndarray:
    """uint8 [97, h, w]: 64 drawn faces, 32 of noise and a black one."""
    from PIL import Image

    from fer_experiments.data.demo import draw_faces

    height, width = size
    faces = [np.asarray(Image.fromarray(face).resize((width, height))) for face in draw_faces(64, 0).images]
    noise = np.random.default_rng(0).integers(0, 256, (32, height, width), dtype=np.uint8)
    return np.concatenate([np.stack(faces), noise, np.zeros((1, height, width), "uint8")])


def _check_free(target: Path) -> None:
    """Refuses what exists, unless it is an empty folder."""
    try:
        if target.is_dir() and not target.is_symlink() and not any(target.iterdir()):
            return
        if not os.path.lexists(target):
            return
    except OSError as error:
        raise UserError(f"output={target}: cannot be read ({error.strerror}); choose another") from error
    raise UserError(f"output={target}: there already; remove it, or choose another")


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A folder on the target's file system, gone afterwards unless it was renamed."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        folder.chmod(0o755)  # others may read what is kept
        yield folder
    except OSError as error:
        raise UserError(f"output={target}: cannot be written ({error.strerror or error}); choose another") from error
    finally:
        if "folder" in locals():
            shutil.rmtree(folder, ignore_errors=True)


def _write(network: keras.Model, form: str, folder: Path) -> None:
    # OpenVINO would report each conversion to its makers; without this package it reports nothing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        if form == "onnx":
            _write_onnx(network, folder / FILES[form])
        elif form == "openvino":
            network.export(str(folder / FILES[form]), format="openvino", verbose=False)
        else:
            network.export(str(folder), format="tf_saved_model", verbose=False)
    except OSError:
        raise
    except Exception as error:
        raise UserError(f"{form}: the model cannot be converted ({first_line(error, 200, named=True)})") from error


def _write_onnx(network: keras.Model, path: Path) -> None:
    """By way of a SavedModel: what Keras 3.15 itself makes of a head that standardises lacks its constants.

    Raises:
        RuntimeError: tf2onnx cannot convert it.
    """
    with tempfile.TemporaryDirectory() as folder:
        network.export(folder, format="tf_saved_model", verbose=False)
        command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", folder, "--output", str(path)]
        done = subprocess.run([*command, "--opset", str(OPSET)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    _without_erfc(path)


def _without_erfc(path: Path) -> None:
    """Writes 1 - Erf in a model for Erfc, which ONNX has not: tf2onnx 1.17 leaves it in, of every exact GELU."""
    import onnx

    model = onnx.load(path)
    if all(node.op_type != "Erfc" for node in model.graph.node):
        return
    one, nodes = "one_of_erfc", []
    for node in model.graph.node:
        if node.op_type == "Erfc":
            below = f"{node.output[0]}_erf"
            nodes.append(onnx.helper.make_node("Erf", node.input, [below]))
            nodes.append(onnx.helper.make_node("Sub", [one, below], node.output))
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((), "float32"), one))
    onnx.save(model, path)
