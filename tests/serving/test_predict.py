"""Pictures in files, folders and standard input to probabilities, by a registered model."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from predicted_faces import draw, faces_in, give, said
from tiny_champion import CLASSES, SIZE

from fer_experiments.data import images
from fer_experiments.errors import UserError
from fer_experiments.serving import fast
from fer_experiments.serving import predict as room
from fer_experiments.serving.predict import names_picture, predict
from fer_experiments.tracking.classifier import FaceClassifier


@pytest.fixture(autouse=True)
def one_model(monkeypatch: pytest.MonkeyPatch, classifier: FaceClassifier) -> None:
    """Loading it takes a second, which `test_the_model_is_found` alone pays."""
    answers = fast.Answering("keras", classifier.classes, classifier.size, classifier.probabilities)
    monkeypatch.setattr(fast, "load_answering", lambda config, which: answers)


@pytest.fixture
def faces(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    return faces_in(tmp_path / "faces")


def test_folder_is_read_in_natural_order_and_what_is_no_picture_is_named(registered, classifier, faces, capsys):
    folder, pixels = faces
    code, text = said(registered, [str(folder)])
    rows = json.loads(text)
    assert [row["file"] for row in rows] == list(pixels)
    expected = classifier.probabilities(np.stack(list(pixels.values())))
    got = [[row["probabilities"][name] for name in CLASSES] for row in rows]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert [row["label"] for row in rows] == [CLASSES[i] for i in expected.argmax(axis=1)]
    assert np.ptp(expected, axis=0).max() > 0.01  # the network does look at the pixels
    errors = capsys.readouterr().err.splitlines()
    assert code == 2 and len(errors) == 2
    assert "cut.png: cannot be read" in errors[0]
    assert errors[1] == f"fer predict: other files ignored: 1, the first {folder}/notes.txt"


def test_what_is_a_picture_is_told_by_content_and_a_name_that_promises_one_is_kept(registered, tmp_path, capsys):
    draw(tmp_path / "a.png", 0)
    (tmp_path / "a.png").rename(tmp_path / "a.strange")
    draw(tmp_path / "b.png", 1)
    (tmp_path / "b.png").rename(tmp_path / "b")
    (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (tmp_path / "page.png").write_text("<html>403</html>")
    os.mkfifo(tmp_path / "pipe")  # nobody ever writes to it
    (tmp_path / "again").symlink_to(tmp_path)
    code, text = said(registered, [str(tmp_path)])
    assert code == 2 and [Path(row["file"]).name for row in json.loads(text)] == ["a.strange", "b"]
    errors = capsys.readouterr().err.splitlines()
    assert "page.png: cannot be read as a picture (an HTML page" in errors[0]
    assert "other files ignored: 3" in errors[1] and len(errors) == 2


def test_pictures_of_one_gray_level_are_named_and_a_table_says_that_no_face_is_looked_for(registered, tmp_path, capsys):
    for name, level in (("black", 0), ("white", 255)):
        Image.new("L", (48, 48), level).save(tmp_path / f"{name}.png")
    draw(tmp_path / "face.png", 0)
    assert said(registered, [str(tmp_path)])[0] == 0
    errors = capsys.readouterr().err.splitlines()
    for name, line in zip(("black", "white"), errors, strict=True):
        assert line.endswith(f"{name}.png: constant, one gray level throughout: no face, and its label says nothing")
    said(registered, [str(tmp_path / "face.png")], "table")
    assert capsys.readouterr().err.splitlines() == [
        "fer predict: no face is looked for: every picture is taken for a face that fills it (see --find-faces)"
    ]


def test_forms_agree(registered, faces):
    folder = faces[0]
    rows = json.loads(said(registered, [str(folder)])[1])
    table = said(registered, [str(folder)], "table")[1].splitlines()
    assert table[0].split() == ["file", "label", *CLASSES]
    assert len({len(line) for line in table}) == 1  # aligned
    commas = list(csv.DictReader(io.StringIO(said(registered, [str(folder)], "csv")[1])))
    for row, line, comma in zip(rows, table[1:], commas, strict=True):
        values = [row["probabilities"][name] for name in CLASSES]
        assert line.split() == [row["file"], row["label"], *(f"{value:.4f}" for value in values)]
        assert (comma["file"], comma["label"]) == (row["file"], row["label"])
        assert [float(comma[f"probability_{name}"]) for name in CLASSES] == values


def test_missing_file_is_named_and_the_rest_goes_on(registered, faces, capsys):
    folder, pixels = faces
    path = next(iter(pixels))
    code, text = said(registered, [str(folder / "nowhere.png"), path])
    assert code == 2 and [row["file"] for row in json.loads(text)] == [path]
    assert "nowhere.png: no such file" in capsys.readouterr().err
    assert said(registered, [path])[0] == 0


@pytest.mark.parametrize(("form", "text"), [("json", "[\n]"), ("csv", "file,label,"), ("table", "")])
def test_nothing_that_can_be_read_is_an_empty_answer(registered, tmp_path, form, text):
    (tmp_path / "notes.txt").write_text("no picture")
    code, got = said(registered, [str(tmp_path)], form)
    assert code == 2 and got.startswith(text) and len(got.splitlines()) <= 2


def test_stdin_is_a_list_of_files_or_a_picture(registered, faces, monkeypatch):
    pixels = faces[1]
    give(monkeypatch, "\n".join([*pixels, ""]).encode())
    code, listed = said(registered, ["-"])
    assert code == 0 and [row["file"] for row in json.loads(listed)] == list(pixels)
    give(monkeypatch, Path(next(iter(pixels))).read_bytes())
    code, alone = said(registered, ["-"])
    row = json.loads(alone)[0]
    assert code == 0 and row["probabilities"] == pytest.approx(json.loads(listed)[0]["probabilities"], abs=1e-6)


def test_a_picture_without_a_zero_is_one_on_stdin_too(registered, faces, monkeypatch):
    pixels = np.maximum(next(iter(faces[1].values())), 1)
    give(monkeypatch, f"P5\n{pixels.shape[1]} {pixels.shape[0]}\n255\n".encode() + pixels.tobytes())
    code, alone = said(registered, ["-"])
    assert code == 0 and [row["file"] for row in json.loads(alone)] == ["-"]


def test_a_name_that_can_be_none_is_a_line_and_the_rest_goes_on(registered, faces, monkeypatch, capsys):
    good = list(faces[1])[:2]
    give(monkeypatch, "\n".join([good[0], "x" * 300, good[1]]).encode())
    code, listed = said(registered, ["-"])
    assert code == 2 and [row["file"] for row in json.loads(listed)] == good
    assert "x" * 50 in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\n"])
def test_nothing_on_stdin_is_a_failure(registered, content, monkeypatch, capsys):
    """As of `curl --fail <address> | fer predict -`."""
    give(monkeypatch, content)
    code, text = said(registered, ["-"], "csv")
    assert code == 2 and len(text.splitlines()) == 1
    assert "neither a picture nor a name" in capsys.readouterr().err


def test_long_list_on_stdin_is_read_to_its_end(registered, faces, monkeypatch):
    path = next(iter(faces[1]))
    names = [path] * (5000 // len(path) + room.BATCH)
    give(monkeypatch, "\r\n".join(names).encode())
    code, text = said(registered, ["-"], "csv")
    assert code == 0 and len(text.splitlines()) == 1 + len(names)


def test_pictures_are_held_in_batches_and_rows_come_out_as_they_are_done(registered, classifier, faces, monkeypatch):
    lines: list[str] = []
    seen = []

    def probabilities(pixels: np.ndarray) -> np.ndarray:
        seen.append((len(pixels), len(lines)))
        return classifier.probabilities(pixels)

    watched = fast.Answering("keras", classifier.classes, classifier.size, probabilities)
    monkeypatch.setattr(fast, "load_answering", lambda registered, which: watched)
    give(monkeypatch, "\n".join([next(iter(faces[1]))] * 150).encode())
    assert predict(registered, ["-"], "csv", lines.append) == 0
    assert seen == [(64, 1), (64, 65), (22, 129)]


def test_large_colour_picture_is_brought_to_the_models_size(registered, classifier, tmp_path):
    from fer_experiments.data.images import read_picture

    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "large.png")
    pixels = read_picture((tmp_path / "large.png").read_bytes(), "large", SIZE)
    expected = classifier.probabilities(pixels[None])[0]
    row = json.loads(said(registered, [str(tmp_path / "large.png")])[1])[0]
    assert list(row["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-6)


def test_odd_names_are_printed(registered, tmp_path):
    names = ['a,"b"\n.png', "é.png", "\udcff.png"]
    for number, name in enumerate(names):
        draw(tmp_path / name, number)
    for form in ("table", "csv", "json"):
        code, text = said(registered, [str(tmp_path)], form)
        assert code == 0 and text.encode()  # UTF-8 throughout
    assert {Path(row["file"]).name for row in json.loads(text)} == set(names)
    assert len(said(registered, [str(tmp_path)], "table")[1].splitlines()) == 4


def test_file_that_is_no_picture_by_its_size_is_not_read(registered, tmp_path, monkeypatch, capsys):
    for module in (room, images):
        monkeypatch.setattr(module, "LIMIT", 1000)
    (tmp_path / "film.png").write_bytes(bytes(1001))
    assert said(registered, [str(tmp_path / "film.png")]) == (2, "[\n]")
    assert "larger than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("paths", "form", "message"), [(["x"], "xml", "format=xml"), ([], "json", "nothing to predict")]
)
def test_wrong_arguments_are_refused(registered, paths, form, message):
    with pytest.raises(UserError, match=message):
        predict(registered, paths, form)


def test_its_own_keys_are_no_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["marked=out.png", "version=1.png", "a=b.png", "paths.mlruns=x.png"]
    assert [names_picture(word, ("version", "marked")) for word in words] == [False, False, True, False]
    (tmp_path / "marked=out.png").touch()
    assert names_picture("marked=out.png", ("version", "marked"))


def test_a_folder_that_is_no_path_is_said_before_the_model_is_loaded(registered, faces):
    with pytest.raises(UserError, match=r"^marked=~nosuchuser/out: is no path"):
        predict(registered, ["-"], find_faces=True, marked="~nosuchuser/out")


def test_no_cell_is_taken_for_a_formula_and_lines_end_where_they_are_meant_to(registered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["=cmd|' -C calc'!A0.png", "+1.png", "-1.png", "@x.png", " =1.png", "＝1.png", 'a\n=b,"c".png', "a\rb.png"]
    for number, name in enumerate(names):
        draw(tmp_path / name, number)
    code, text = said(registered, names, "csv")
    cells = [row["file"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    assert code == 0 and cells == [*(f"'{name}" for name in names[:6]), names[6], "a\\rb.png"]
    assert "\r" not in text


def test_what_is_no_plain_file_is_not_waited_for(registered, tmp_path, capsys):
    draw(tmp_path / "a.png", 0)
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to("/dev/zero")
    (tmp_path / "d.png").symlink_to("/dev/tty")
    for paths in ([str(tmp_path)], [str(tmp_path / f"{name}.png") for name in "abcd"]):
        code, text = said(registered, paths)
        assert code == 2 and [Path(row["file"]).name for row in json.loads(text)] == ["a.png"]
        errors = capsys.readouterr().err.splitlines()
        assert [f"{name}.png: cannot be read (" in line for name, line in zip("bcd", errors, strict=True)] == [True] * 3


def test_names_on_standard_error_move_no_cursor_and_forge_no_line(registered, tmp_path, capsys):
    for name in ("a\x1b[2J.png", "b\nfer predict: all is well.png"):
        (tmp_path / name).write_bytes(b"no picture")
        (tmp_path / name).with_suffix(".txt").write_bytes(b"no picture")
    np_black = np.zeros(SIZE, np.uint8)
    Image.fromarray(np_black).save(tmp_path / "c\x1b[2J\n.png")
    assert said(registered, [str(tmp_path)])[0] == 2
    errors = capsys.readouterr().err
    assert errors.replace("\n", "").isprintable() and len(errors.splitlines()) == 4
