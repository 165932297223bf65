from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from face_files import csv_text, random_faces, write_folder, write_zip
from hypothesis import given
from hypothesis import strategies as st

from fer_experiments.data import tables
from fer_experiments.data.faces import EMOTIONS, Faces
from fer_experiments.data.names import Naming
from fer_experiments.data.readers import read_faces
from fer_experiments.errors import UserError

FACES = random_faces(1)
TEXT = csv_text(FACES)


def with_labels(label: Callable[[str], str]) -> str:
    header, *rows = TEXT.splitlines()
    return "\n".join([header, *(f"{label(row[0])}{row[1:]}" for row in rows)])


def with_pixels(form: Callable[[str], str]) -> str:
    header, *rows = TEXT.splitlines()
    cells = [row.split(",") for row in rows]
    return "\n".join([header, *(f'{emotion},"{form(pixels)}",{usage}' for emotion, pixels, usage in cells)])


FORMS: dict[str, bytes] = {
    "labels as pandas writes them": with_labels(lambda code: f"{code}.0").encode(),
    "labels that are names": with_labels(lambda code: EMOTIONS[int(code)].title()).encode(),
    "a header of label": TEXT.replace("emotion", "label", 1).encode(),
    "usage in small letters": TEXT.replace("Training", "training").replace("PublicTest", "publictest").encode(),
    "usage as folders call it": TEXT.replace("Training", "train").replace("PrivateTest", "test").encode(),
    "everything quoted": "\n".join(",".join(f'"{x}"' for x in row.split(",")) for row in TEXT.splitlines()).encode(),
    "semicolons": TEXT.replace(",", ";").encode(),
    "tabs": TEXT.replace(",", "\t").encode(),
    "commas between pixels": with_pixels(lambda pixels: pixels.replace(" ", ", ")).encode(),
    "pixels as a list": with_pixels(lambda pixels: f"[{pixels.replace(' ', ', ')}]").encode(),
    "pixels with a point": with_pixels(lambda pixels: pixels.replace(" ", ".0 ") + ".0").encode(),
    "pixels of three digits": with_pixels(lambda pixels: " ".join(f"{pixel:>03}" for pixel in pixels.split())).encode(),
    "an index before": "\n".join(f"{i},{row}" if i else f",{row}" for i, row in enumerate(TEXT.splitlines())).encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "gzip": gzip.compress(TEXT.encode()),
    "bzip2": bz2.compress(TEXT.encode()),
    "xz": lzma.compress(TEXT.encode()),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_can_mean_but_one_thing_is_read(tmp_path: Path, form: str) -> None:
    path = tmp_path / "table"
    path.write_bytes(FORMS[form])
    found = read_faces(path)
    for name in ("images", "emotion", "usage"):
        assert np.array_equal(getattr(found, name), getattr(FACES, name))


def test_any_square_is_a_side_even_one_whose_text_is_long(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 250, 250), dtype=np.uint8)
    faces = Faces(images, np.array(["sad", "happy"]), np.array(["Training"] * 2), np.array(["a", "b"]))
    (tmp_path / "large.csv").write_text(csv_text(faces))
    assert np.array_equal(read_faces(tmp_path / "large.csv").images, images)


def test_numbers_of_another_set_stay_numbers_until_data_emotions_says_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "rafdb.csv").write_text(TEXT)
    assert set(read_faces(tmp_path / "rafdb.csv", Naming("rafdb")).emotion) == set("0123456")
    given = Naming("rafdb", {"0": "surprise", "1": "fear"})
    assert set(read_faces(tmp_path / "rafdb.csv", given).emotion) == {"surprise", "fear", *"23456"}


def test_contempt_of_other_tables_is_refused_until_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "ck.csv").write_text(TEXT + "7" + TEXT.splitlines()[1][1:])
    with pytest.raises(UserError, match=r"row 23: unknown emotion '7'.*data\.emotions=\{7:contempt\}"):
        read_faces(tmp_path / "ck.csv")
    assert read_faces(tmp_path / "ck.csv", Naming("fer2013", {"7": "contempt"})).emotion[-1] == "contempt"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (TEXT.encode() + b"\0" * 400, "row 23: a NUL byte, which no CSV has: the rest was never written"),
        (TEXT.encode() + b"x,y,z,a,b", "row 23: 5 fields where the header has 3; mend or remove the row"),
        (TEXT.encode()[:-4000], r"row 2\d: .*is the file cut off\?"),
        (with_pixels(lambda pixels: pixels[:6000]).encode(), r"row 2: \d+ pixels, not a square.*20 other rows"),
        (with_labels(lambda code: code).replace("\n3,", "\n,").encode(), "unknown emotion ''"),
        (b"Usage,Image name,neutral,happiness,surprise,sadness,anger\n", "labels without pixels, as FER. gives them"),
        (TEXT.replace("Usage", "Emotion", 1).encode(), "line 1 names 2 columns emotion; remove or rename all but one"),
        (TEXT.replace("emotion,", "pixels,", 1).encode(), "line 1 names no column emotion"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(60), "a 7z archive, which is not read; unpack it"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(60), "a RAR archive, which is not read; unpack it"),
        (b"PAR1" + bytes(60), "a Parquet file, which is not read; save it as CSV"),
        (b"\n<!DOCTYPE html><html>login</html>", "a page of HTML"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "a picture; give a folder"),
        (gzip.compress(TEXT.encode())[:-9], "truncated or damaged"),
    ],
)
def test_the_cause_is_guessed_from_what_is_there(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "given"
    path.write_bytes(content)
    with pytest.raises(UserError, match=named) as caught:
        read_faces(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_fields_that_a_spreadsheet_has_cut_are_said_to_be(tmp_path: Path) -> None:
    pixels = " ".join(["7"] * 250 * 250)
    rows = [f"3,{pixels},Training"] * 2 + [f"3,{pixels[:32767]},Training"]
    (tmp_path / "cut.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]))
    with pytest.raises(UserError, match="row 4: 16384 pixels, not 250x250 = 62500; a spreadsheet has cut the field"):
        read_faces(tmp_path / "cut.csv")


def test_of_several_tables_the_only_one_with_faces_is_read(tmp_path: Path) -> None:
    files = {"train.csv": TEXT.encode(), "test.csv": b"pixels\n1 2 3\n", "example_submission.csv": b"emotion\n0\n"}
    for path in (write_folder(tmp_path / "challenge", files), write_zip(tmp_path / "challenge.zip", files)):
        assert len(read_faces(path)) == len(FACES)


@given(st.lists(st.sampled_from([*map(str, range(0, 300, 7)), "007", "255", "256", "1000", "5.0", "a", "-1", "é", ""])))
def test_pixels_that_are_parsed_at_once_are_those_that_are_parsed_one_by_one(texts: list[str]):
    text, plain = " ".join(texts), tables._plain(" ".join(texts))
    is_plain = bool(texts) and all(said.isascii() and said.isdigit() and said in tables.PIXEL for said in texts)
    assert plain == (bytes(map(int, texts)) if is_plain else None), text
