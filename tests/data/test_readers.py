from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from face_files import WRITERS, csv_text, png, random_faces, tree, write_folder, write_tar, write_zip
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from fer_experiments.config import DataConfig
from fer_experiments.data.faces import EMOTIONS, USAGES, Faces
from fer_experiments.data.readers import find_fer2013, find_source, read_faces
from fer_experiments.errors import UserError

ICML = ("emotion", " Usage", " pixels")


def same(one: Faces, other: Faces) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("images", "emotion", "usage"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hypothesis")


@st.composite
def labelled_faces(draw: st.DrawFn) -> Faces:
    images = draw(arrays(np.uint8, st.tuples(st.integers(1, 3), st.just(48), st.just(48))))
    emotion = draw(st.lists(st.sampled_from(EMOTIONS), min_size=len(images), max_size=len(images)))
    usage = draw(st.lists(st.sampled_from(USAGES), min_size=len(images), max_size=len(images)))
    return Faces(images, np.array(emotion), np.array(usage), np.arange(len(images)).astype(str))


@given(labelled_faces(), st.permutations(["emotion", " pixels", "Usage"]), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=20, deadline=None)
def test_csv_round_trip_in_any_column_order_with_or_without_bom_and_windows_line_ends(
    folder: Path, faces: Faces, columns: list[str], bom: bool, windows: bool, last_newline: bool
) -> None:
    text = csv_text(faces, tuple(columns))
    text = text if last_newline else text.removesuffix("\n")
    text = text.replace("\n", "\r\n") if windows else text
    path = folder / "round_trip.csv"
    path.write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))
    assert same(read_faces(path), faces)


@given(
    st.sampled_from(
        [b"", b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08\x00", b"emotion,pixels\n", b"emotion,pixels\n3,"]
    ),
    st.binary(max_size=200),
)
@settings(max_examples=150, deadline=None)
def test_random_bytes_are_refused_in_one_line(folder: Path, start: bytes, rest: bytes) -> None:
    path = folder / "random"
    path.write_bytes(start + rest)
    with pytest.raises(UserError) as caught:
        read_faces(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_csv_without_usage_is_read(tmp_path: Path, faces: Faces) -> None:
    path = tmp_path / "train.csv"
    path.write_text(csv_text(faces, ("emotion", "pixels")))
    assert set(read_faces(path).usage) == {""}


def test_csv_ids_are_the_rows_of_the_file(faces_csv: Path) -> None:
    assert read_faces(faces_csv).ids[:2].tolist() == ["row-000002", "row-000003"]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("3,{short},Training", "2303 pixels, not 48x48 = 2304"),
        ("3,{short} x,Training", "pixel 'x' is no whole number from 0 to 255"),
        ("3,{short} 1.5,Training", "pixel '1.5'"),
        ("3,{short} -1,Training", "pixel '-1'"),
        ("3,{short} 256,Training", "pixel '256' is no whole number from 0 to 255"),
        ("7,{full},Training", "unknown emotion '7'; known are 0 angry"),
        ("hapy,{full},Training", "unknown emotion 'hapy'; known are 0 angry"),
        ("3,{full},Trainin", "unknown Usage 'Trainin'; known are Training, PublicTest, PrivateTest"),
        ("3,{short}", "2 fields where the header has 3; is the file cut off?"),
        ("3", "1 fields where the header has 3; is the file cut off?"),
        ("3,{full},Training,extra", "4 fields where the header has 3; mend or remove the row"),
        ("3,{full}\xff,Training", "not CSV text"),
    ],
)
def test_a_fault_in_a_csv_is_named_by_file_row_and_remedy(tmp_path: Path, row: str, named: str) -> None:
    short = " ".join(["7"] * 2303)
    path = tmp_path / "faulty.csv"
    good = f"3,{short} 7,Training\n"
    text = "emotion,pixels,Usage\n" + good + good + row.format(short=short, full=f"{short} 7")
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="row 4") as caught:
        read_faces(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "empty"),
        ("emotion,pixels,Usage\n", "no rows"),
        ("name,image\n1,2\n", "no column emotion or pixels but 'name, image'"),
        ("emotion,image\n1,2\n", "no column pixels"),
    ],
)
def test_a_csv_without_rows_or_columns_is_refused(tmp_path: Path, content: str, named: str) -> None:
    path = tmp_path / "bare.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=named):
        read_faces(path)


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.zip: no such file or folder; mend data\.path"):
        read_faces(tmp_path / "absent.zip")


@pytest.mark.parametrize(
    ("source", "what"),
    [("image_folder", "a folder or an archive of class folders"), ("fer2013", "FER2013's zip, CSV or folder")],
)
def test_a_missing_path_is_told_with_what_this_data_is_read_from(tmp_path: Path, source: str, what: str) -> None:
    cfg = DataConfig(name=source, source=source, path=str(tmp_path / "absent"))
    with pytest.raises(UserError, match=rf"absent: no such file or folder; give the path of {what}$"):
        find_source(cfg)


@pytest.mark.parametrize("form", WRITERS)
def test_a_tree_is_read_from_every_container_and_prefixes_are_its_usage(
    tmp_path: Path, faces: Faces, form: str
) -> None:
    found = read_faces(WRITERS[form](tmp_path / "packed", tree(faces)))
    order = np.argsort([int(name.rpartition("_")[2]) for name in found.ids])
    assert same(found.take(order), faces)
    assert found.ids[order][0] == f"{faces.usage[0]}_0"


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("name", ["fer2013.csv", "fer2013/fer2013.csv", "any.csv"])
def test_a_csv_is_read_from_every_container(tmp_path: Path, faces: Faces, form: str, name: str) -> None:
    path = WRITERS[form](tmp_path / "packed", {name: csv_text(faces).encode(), "README.txt": b"hello"})
    assert same(read_faces(path), faces)


def test_the_competition_file_is_chosen_among_several(tmp_path: Path, faces: Faces) -> None:
    files = {"icml_face_data.csv": csv_text(faces, ICML).encode(), "test.csv": b"pixels\n", "train.csv": b""}
    assert same(read_faces(write_zip(tmp_path / "challenge.zip", files)), faces)
    del files["icml_face_data.csv"]
    with pytest.raises(UserError, match=r"several CSV files \(test\.csv, train\.csv\)"):
        read_faces(write_zip(tmp_path / "challenge.zip", files))


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize(
    "names", [("a/fer2013.csv", "b/fer2013.csv"), ("fer2013.csv", "icml_face_data.csv"), ("a.csv", "happy/b.csv")]
)
def test_of_several_tables_of_faces_none_is_taken(
    tmp_path: Path, faces: Faces, names: tuple[str, ...], form: str
) -> None:
    path = WRITERS[form](tmp_path / "packed", {name: csv_text(faces).encode() for name in names})
    with pytest.raises(UserError, match=rf"several CSV files \({', '.join(names)}\); give one of them as data\.path"):
        read_faces(path)


@pytest.mark.parametrize("table", ["old/fer2013.csv", "fer2013.csv", "happy/faces.csv"])
@pytest.mark.parametrize(
    "pictures", [("happy/1.png",), ("joyous/1.png", "1/1.png"), ("a/train/x/1.png", "a/test/y/1.png")]
)
def test_a_table_of_faces_among_class_folders_is_refused_with_both_names(
    tmp_path: Path, faces: Faces, table: str, pictures: tuple[str, ...]
) -> None:
    files = {table: csv_text(faces).encode()} | dict.fromkeys(pictures, png(faces.images[0]))
    with pytest.raises(UserError) as caught:
        read_faces(write_folder(tmp_path, files))
    assert f"faces in {table} and pictures in folders ({sorted(pictures)[0]}); give the CSV as" in str(caught.value)


@pytest.mark.parametrize("picture", ["preview.png", "docs/matrix.png", "fer2013/1.png"])
def test_a_table_beside_pictures_that_are_no_class_is_read(tmp_path: Path, faces: Faces, picture: str) -> None:
    files = {"fer2013/fer2013.csv": csv_text(faces).encode(), "test.csv": b"pixels\n", picture: png(faces.images[0])}
    assert same(read_faces(write_folder(tmp_path, files)), faces)


def test_split_folders_give_the_usage_and_a_common_folder_above_is_no_matter(tmp_path: Path) -> None:
    image = png(np.arange(2304, dtype=np.uint8).reshape(48, 48))
    files = {f"top/{split}/Happy/{split}.png": image for split in ("train", "Validation", "test")}
    found = read_faces(write_zip(tmp_path / "tree.zip", files))
    assert dict(zip(found.ids, found.usage, strict=True)) == {
        "train": "Training",
        "Validation": "PublicTest",
        "test": "PrivateTest",
    }
    assert set(found.emotion) == {"happy"}


def test_class_folders_alone_name_the_emotions_and_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    image = png(np.arange(2304, dtype=np.uint8).reshape(48, 48))
    found = read_faces(write_folder(tmp_path, {"Contempt/1.png": image, "awe/1.png": image, "awe/2.png": image}))
    rows = sorted(zip(found.ids, found.emotion, found.usage, strict=True))
    assert rows == [("2", "awe", ""), ("Contempt/1.png", "contempt", ""), ("awe/1.png", "awe", "")]


def test_colour_and_differing_sizes_become_gray_48x48_and_are_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (60, 50, 3), np.uint8)
    gray = rng.integers(0, 256, (48, 48), np.uint8)
    files = {"a/1.png": png(gray), "a/2.png": png(colour), "b/3.png": png(gray), "b/note.txt": b"", "b/.hidden": b""}
    found = read_faces(write_zip(tmp_path / "mixed.zip", files))
    assert found.images.shape == (3, 48, 48)
    np.testing.assert_array_equal(found.images[0], gray)
    small = Image.fromarray(colour).convert("L").resize((48, 48), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found.images[1], np.asarray(small))
    resized = "resized to 48x48, first a/2.png of 50x60"
    assert found.converted == {"colour to gray": 1, resized: 1, "other files ignored": 1}


def test_images_of_one_size_keep_it(tmp_path: Path) -> None:
    image = png(np.arange(600, dtype=np.uint8).reshape(20, 30))
    found = read_faces(write_folder(tmp_path, {"a/1.png": image, "b/2.png": image}))
    assert found.images.shape == (2, 20, 30)
    assert not found.converted


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({}, "no images and no fer2013.csv"),
        ({"notes.txt": b"x"}, "no images and no fer2013.csv"),
        ({"face.png": b"x"}, r"face\.png does not fit <class>/<image>"),
        ({"happy/1.png": b"x", "2.png": b"x"}, r"does not fit"),
        ({"train/happy/1.png": b"x", "sad/2.png": b"x"}, "does not fit"),
        ({"train/happy/1.png": b"x", "train/sad/1.png": b"x", "odd/happy/2.png": b"x"}, "odd/happy/2.png does not fit"),
        ({"happy/Training_1.png": b"x", "happy/2.png": b"x"}, "2.png is in no split folder while others are"),
        ({"happy/1.png": b"no image"}, r": happy/1\.png: cannot be read as a picture \(no format that is known\)"),
        ({"happy/1.jpg": b""}, r": happy/1\.jpg: cannot be read as a picture \(the file is empty\)"),
        ({"happy/1.png": png(random_faces(1).images[0])[:1000]}, r": happy/1\.png: cannot be read as a picture"),
        ({"happy/1.png": png(np.zeros((48, 48), np.uint16))}, r"more than 8 bits"),
    ],
)
def test_a_faulty_tree_is_refused_by_name(tmp_path: Path, files: dict[str, bytes], named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        read_faces(write_folder(tmp_path, files))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_folder_without_images_is_refused(tmp_path: Path, faces: Faces) -> None:
    write_folder(tmp_path, tree(faces))
    (tmp_path / "train" / "contempt").mkdir()
    with pytest.raises(UserError, match="class folder train/contempt holds no image"):
        read_faces(tmp_path)


def test_fer2013_is_found_by_environment_first_then_under_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FER2013", raising=False)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fer2013.zip").touch()
    assert find_fer2013() == Path.cwd() / "data" / "fer2013.zip"
    other = tmp_path / "elsewhere.csv"
    other.touch()
    monkeypatch.setenv("FER2013", os.fspath(other))
    assert find_fer2013() == other
    monkeypatch.setenv("FER2013", "nowhere.zip")
    with pytest.raises(UserError, match=r"\$FER2013: no file or folder nowhere\.zip"):
        find_fer2013()


@pytest.mark.parametrize("name", ["fer2013", "fer2013.csv", "fer2013.csv.gz", "fer2013.tar", "fer2013_copy.csv"])
def test_what_is_no_fer2013_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FER2013", raising=False)
    monkeypatch.setattr("fer_experiments.data.readers.project_root", lambda: tmp_path)
    data = tmp_path / "data"
    (data / "fer2013_empty" / "train").mkdir(parents=True)
    (data / "fer2013.zip.part").write_bytes(b"PK\x03\x04")
    (data / "fer2013new.csv").write_text("Usage,Image name,neutral,happiness\nTraining,fer0000000.png,4,0\n")
    (data / "fer2013_notes").write_text("downloaded on Monday")
    assert find_fer2013() is None
    text = csv_text(random_faces(1)).encode()
    if name == "fer2013.tar":
        write_tar(data / name, {"fer2013.csv": text}, "w")
    else:
        (data / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    found = find_fer2013()
    assert found == data / name
    assert len(read_faces(found)) == 21
