"""Faces in photographs are found, cut out as FER2013 shows them, told, and marked."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from photographs import GRAY, PLACES, Place, found_faces, photograph
from PIL import Image
from tiny_champion import CLASSES, SIZE

from fer_experiments.cli import main
from fer_experiments.config import Config
from fer_experiments.errors import UserError
from fer_experiments.serving import fast, finding
from fer_experiments.serving.finding import Face, cut_out, find_faces
from fer_experiments.serving.predict import predict
from fer_experiments.tracking.classifier import FaceClassifier


def overlap(face: Face, place: Place) -> float:
    """Intersection over union."""
    left, top, side = place
    wide = min(face.left + face.width, left + side) - max(face.left, left)
    tall = min(face.top + face.height, top + side) - max(face.top, top)
    both = max(0, wide) * max(0, tall)
    return both / (face.width * face.height + side * side - both)


@pytest.fixture(scope="module")
def drawn() -> list[np.ndarray]:
    return found_faces()


@pytest.fixture
def folder(
    tmp_path: Path, drawn: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, classifier: FaceClassifier
) -> Path:
    answers = fast.Answering("keras", classifier.classes, classifier.size, classifier.probabilities)
    monkeypatch.setattr(fast, "load_answering", lambda config, which: answers)
    Image.fromarray(photograph(drawn, PLACES)).save(tmp_path / "both.png")
    Image.fromarray(np.full((200, 200), GRAY, np.uint8)).save(tmp_path / "none.png")
    return tmp_path


def test_each_face_has_a_row_with_its_place_from_the_top_down(
    registered: Config, folder: Path, classifier: FaceClassifier, capsys: pytest.CaptureFixture[str]
):
    lines: list[str] = []
    assert predict(registered, [str(folder)], "json", lines.append, find_faces=True) == 0
    rows = json.loads("\n".join(lines))
    assert [Path(row["file"]).name for row in rows] == ["both.png", "both.png"]
    faces = [Face(**row["face"]) for row in rows]
    for face, place in zip(faces, PLACES, strict=True):
        assert overlap(face, place) > 0.5 and face.confidence > 0
    picture = np.asarray(Image.open(folder / "both.png"))
    asked = classifier.probabilities(np.stack([cut_out(picture, face, SIZE) for face in faces]))
    np.testing.assert_allclose([list(row["probabilities"].values()) for row in rows], asked, atol=1e-6)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"fer predict: {folder}/none.png: constant, one gray level throughout: no face"]


def test_table_and_csv_tell_the_place_and_copies_are_marked(registered: Config, folder: Path):
    lines: list[str] = []
    marked = folder / "out" / "marked"
    predict(registered, [str(folder / "both.png")], "csv", lines.append, find_faces=True, marked=str(marked))
    first, _ = csv.DictReader(io.StringIO("\n".join(lines)))
    assert list(first) == ["file", *Face._fields, "label", *(f"probability_{name}" for name in CLASSES)]
    face = Face(*(int(first[key]) for key in Face._fields[:4]), float(first["confidence"]))
    assert [file.name for file in marked.iterdir()] == ["both.png.png"]
    copy, picture = (np.asarray(Image.open(file)) for file in (marked / "both.png.png", folder / "both.png"))
    assert copy.shape == (*picture.shape, 3)
    bottom = copy[face.top + face.height - 1, face.left : face.left + face.width]
    assert (bottom == finding.COLOUR).all(), "the frame"
    changed = (copy != picture[..., None]).any(axis=2)
    assert changed[face.top : face.top + 10].any() and changed.mean() < 0.2
    shown: list[str] = []
    predict(registered, [str(folder / "both.png")], "table", shown.append, find_faces=True)
    assert shown[0].split() == ["file", "face", "label", *CLASSES]
    assert shown[1].split()[1:3] == [str(face), first["label"]]


def test_copies_of_pictures_with_long_names_have_names_that_files_may_have(registered: Config, folder: Path):
    (long := folder / "long").mkdir()
    for letter in "ab":
        shutil.copy(folder / "both.png", long / f"{'é' * 120}{letter}.png")
    predict(registered, [str(long)], "json", lambda line: None, find_faces=True, marked=str(folder / "out"))
    assert len(list((folder / "out").iterdir())) == 2


@pytest.mark.parametrize("inside", ["out", "more/out"])
def test_copies_among_the_pictures_are_none_of_them_the_next_time(registered: Config, folder: Path, inside: str):
    photos = folder / "photos"
    photos.mkdir()
    shutil.copy(folder / "both.png", photos)
    marked = photos / inside
    rows: list[list[str]] = [[], []]
    for lines in rows:
        done = predict(registered, [str(photos)], "json", lines.append, find_faces=True, marked=str(marked))
        assert done == 0 and [file.name for file in marked.iterdir()] == ["both.png.png"]
    assert rows[0] == rows[1] and len(json.loads("\n".join(rows[0]))) == 2
    again: list[str] = []
    assert predict(registered, [str(marked)], "json", again.append, find_faces=True) == 0
    assert "both.png.png" in again[1], "a folder that is no place for copies now"


@pytest.mark.parametrize(
    ("marked", "said"),
    [
        (".", "{folder} is searched for pictures, copies too; name another folder"),
        ("..", "{folder} is searched for pictures, copies too; name another folder"),
        ("none.png/out", "cannot be made (Not a directory); name another folder"),
        ("none.png", "cannot be made (File exists); name another folder"),
    ],
)
def test_no_place_for_copies_is_said_before_a_model_is_loaded(
    folder: Path, marked: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(fast, "load_answering", lambda *given: pytest.fail("it was loaded"))
    asked = f"marked={folder}/{marked}"
    assert main(["predict", str(folder), "--find-faces", asked]) == 2
    assert capsys.readouterr().err == f"fer predict: {asked}: {said.format(folder=folder)}\n"


def test_a_picture_without_faces_gives_no_row(registered: Config, folder: Path):
    for form, expected in (("json", ["[", "]"]), ("table", [])):
        lines: list[str] = []
        assert predict(registered, [str(folder / "none.png")], form, lines.append, find_faces=True) == 0
        assert lines == expected


def test_what_cannot_be_is_refused_before_a_model_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert main(["predict", str(folder), "marked=out"]) == 2
    assert "marked=out: faces are marked where they are looked for; say --find-faces too" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "dlib", None)
    assert main(["predict", str(folder), "--find-faces"]) == 2
    assert "--find-faces: dlib is not installed; pip install dlib-bin (the extra faces)" in capsys.readouterr().err
    with pytest.raises(UserError, match="dlib"):
        finding.check_detector()


@pytest.mark.parametrize("place", [(0, 0, 144), (496, 156, 144)])
def test_a_face_at_an_edge_is_cut_out_within_the_picture(drawn: list[np.ndarray], place: Place):
    picture = photograph(drawn[:1], [place])
    for face in find_faces(picture):
        assert face.left >= 0 and face.top >= 0
        assert face.left + face.width <= picture.shape[1] and face.top + face.height <= picture.shape[0]
        assert cut_out(picture, face, SIZE).shape == SIZE


def test_most_faces_of_fer2013_are_found_where_they_were_put(fer2013_zip: Path):
    place = (200, 100, 144)
    with zipfile.ZipFile(fer2013_zip) as archive:
        names = sorted(name for name in archive.namelist() if "/happy/Training" in name)[:: 7215 // 30]
        faces = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names]
    found = [find_faces(photograph([face], [place])) for face in faces]
    overlaps = [max(overlap(face, place) for face in each) for each in found if each]
    assert len(overlaps) > 0.7 * len(faces) and np.median(overlaps) > 0.7
