"""The registered model in the formats of other runtimes, checked against itself."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tiny_champion import CLASSES, SIZE

from fer_experiments.errors import UserError
from fer_experiments.serving import export as room
from fer_experiments.serving import loading
from fer_experiments.serving.export import check_images, export


def installed(form: str) -> pytest.MarkDecorator:
    missing = [name for name in room.NEEDED[form] if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed: {form} is not tried")


FORMS = [pytest.param(form, marks=installed(form)) for form in room.NEEDED]


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")


def said(form: str, model: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """What the other runtime says."""
    monkeypatch.setattr(sys, "argv", ["-c", str(model)])
    names: dict[str, Any] = {"sys": sys}
    exec(room.LOAD[form], names)
    answer: np.ndarray = names["call"](images)
    return answer


@pytest.mark.parametrize("form", FORMS)
def test_other_runtime_says_what_the_model_says(registered, classifier, tmp_path, form, monkeypatch):
    lines: list[str] = []
    output = tmp_path / "new" / "model"
    assert export(registered, form, str(output), lines.append) == output
    assert "models:/fer-demo/1" in lines[0] and float(lines[1].split()[-1]) <= room.TOLERANCE
    assert json.loads((output / "classes.json").read_text()) == CLASSES
    assert [path.name for path in output.parent.iterdir()] == ["model"]
    images = np.random.default_rng(5).integers(0, 256, (7, *SIZE), dtype=np.uint8)
    got = said(form, output / room.FILES[form], images, monkeypatch)
    np.testing.assert_allclose(got, classifier.probabilities(images), atol=room.TOLERANCE)


@installed("onnx")
def test_an_exact_gelu_is_written_in_what_onnx_has(tmp_path):
    import onnx
    import onnxruntime

    value = {name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3]) for name in ("x", "y")}
    nodes = [onnx.helper.make_node("Erfc", ["x"], ["z"]), onnx.helper.make_node("Neg", ["z"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "gelu", [value["x"]], [value["y"]])
    opset = onnx.helper.make_opsetid("", room.OPSET)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "model.onnx")
    room._without_erfc(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    given = np.array([-1, 0, 2], "float32")
    np.testing.assert_allclose(session.run(None, {"x": given})[0], [-math.erfc(x) for x in given], atol=1e-6)


@installed("onnx")
def test_onnx_may_be_one_file(registered, tmp_path):
    assert export(registered, "onnx", str(tmp_path / "model.onnx"), lambda line: None).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_model_that_differs_is_not_kept(registered, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "predict_fresh", lambda what, code, given, images: np.full((len(images), 3), 1 / 3))
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"differ by up to .* nothing was written"):
        export(registered, "savedmodel", str(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and not any((tmp_path / "out").iterdir())


def test_model_that_cannot_be_converted_or_loaded_leaves_nothing(registered, classifier, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("an operation that it does not know\nand more")

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "export", fail)
        with pytest.raises(
            UserError, match=r"cannot be converted \(RuntimeError: an operation that it does not know\)"
        ):
            export(registered, "savedmodel", str(tmp_path / "out"))
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "export", lambda *args, **options: None)
        with pytest.raises(UserError, match="cannot be used in a fresh process"):
            export(registered, "savedmodel", str(tmp_path / "out"))
    assert not any(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten(registered, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "find_model", lambda *args: pytest.fail("looked for a model first"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for output in ("folder", "folder/kept", "link"):
        with pytest.raises(UserError, match="there already"):
            export(registered, "savedmodel", str(tmp_path / output))
    assert (tmp_path / "folder" / "kept").read_text() == "kept"


@pytest.mark.parametrize(
    ("form", "output", "message"),
    [("torch", "out", "format=torch: choose one of savedmodel, onnx, openvino"), ("openvino", "model.xml", "a folder")],
)
def test_wrong_arguments_are_refused(registered, form, output, message):
    with pytest.raises(UserError, match=message):
        export(registered, form, output)


def test_missing_package_is_named_with_the_remedy(registered, tmp_path, monkeypatch):
    monkeypatch.setitem(room.NEEDED, "onnx", ("numpy", "not_there"))
    with pytest.raises(UserError, match=r"format=onnx needs not_there.* -m pip install not_there$"):
        export(registered, "onnx", str(tmp_path / "out"))


def test_another_backend_is_told_which_one_writes(registered, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(UserError, match=r"format=onnx: TensorFlow writes it; .* with KERAS_BACKEND=tensorflow$"):
        export(registered, "onnx", str(tmp_path / "out"))


def test_output_that_cannot_be_written_is_said(registered, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be (read|written)"):
        export(registered, "savedmodel", str(tmp_path / "file" / "out"))


def test_check_looks_at_enough_images_of_every_kind():
    images = check_images((20, 30))
    assert images.shape == (97, 20, 30) and images.dtype == np.uint8
    assert len(np.unique(images, axis=0)) == 97
