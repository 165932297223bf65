from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from face_files import WRITERS, png, random_faces, tree, write_folder, write_zip
from PIL import Image

from fer_experiments.data.names import Naming
from fer_experiments.data.readers import read_faces
from fer_experiments.errors import UserError

FACE = png(random_faces(1).images[0])


def saved(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def refusal(folder: Path, files: Mapping[str, bytes]) -> str:
    with pytest.raises(UserError) as caught:
        read_faces(write_folder(folder, files))
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{folder}: ")


@pytest.mark.parametrize("form", WRITERS)
def test_a_picture_is_one_by_its_content_whatever_its_suffix(tmp_path: Path, form: str) -> None:
    image = Image.fromarray(random_faces(1).images[0])
    jpeg = saved(image, "JPEG")
    files = {"fear/1.jpg": jpeg, "fear/2.jfif": jpeg, "fear/3.JPEG": jpeg, "sad/4": jpeg, "sad/5.dat": jpeg}
    files |= {f"sad/{name}.x": saved(image, name) for name in ("PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")}
    others = {
        "sad/Thumbs.db": b"\xd0\xcf\x11\xe0",
        "sad/desktop.ini": b"x",
        "README.txt": b"BM of P5 faces",
        "a.csv": b"",
    }
    found = read_faces(WRITERS[form](tmp_path / "packed", files | others))
    assert len(found) == len(files)
    assert found.converted == {"colour to gray": 1, "other files ignored": 4}  # AVIF has no gray


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>403</html>", "an HTML page"),
        (b"<?xml version='1.0'?><svg/>", "a drawing in SVG"),
        (b"\0\0\0 ftypheic" + bytes(40), "HEIC, which is not read"),
        (b"\0\0\0 ftypavif" + bytes(40), ""),
        (b"text", "no format that is known"),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "jfif", "svg", "avif", "heic"])
def test_what_should_be_a_picture_by_its_name_and_is_none_is_refused(
    tmp_path: Path, content: bytes, reason: str, suffix: str
) -> None:
    said = refusal(tmp_path, {"happy/1.png": FACE, f"happy/2.{suffix}": content, "sad/1.png": FACE})
    assert said.startswith(f"happy/2.{suffix}: cannot be read as a picture ({reason}")


SPLITS = [("FER2013Test", "FER2013Train", "FER2013Valid"), ("train", "test", "valid"), ("Dev",), ("Train_set", "val")]


@pytest.mark.parametrize("names", SPLITS)
def test_classes_that_are_all_names_of_splits_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    said = refusal(tmp_path, {f"{name}/1.png": FACE for name in names} | {f"{names[0]}/label.csv": b"x"})
    assert f"{', '.join(sorted(names))} name splits, not expressions (labels in {names[0]}/label.csv are not" in said
    assert "put the images into a folder for each expression, <class>/<image> or" in said


def test_one_folder_for_all_images_is_no_class(tmp_path: Path) -> None:
    files = {f"{part}/images/{number}.jpg": FACE for part in ("train_set", "val_set") for number in range(3)}
    files |= {"train_set/annotations/0_exp.npy": b"x"}
    said = refusal(tmp_path, files)
    assert said.startswith("all images lie in folders called images, not expressions (labels in train_set/annotations/")


@pytest.mark.parametrize("form", WRITERS)
def test_dev_is_a_validation_folder_and_a_data_set_s_name_may_stand_before_a_split(tmp_path: Path, form: str) -> None:
    files = {f"top/{part}/{name}/{part}.png": FACE for part in ("FERTrain", "dev", "Test") for name in ("sad", "happy")}
    found = read_faces(WRITERS[form](tmp_path / "packed", files))
    assert set(found.usage) == {"Training", "PublicTest", "PrivateTest"}
    assert set(found.emotion) == {"sad", "happy"}


@pytest.mark.parametrize(
    ("usual", "stray"),
    [
        (["data/happy/{}.png", "data/sad/{}.png"], "data/preview.png"),
        (["happy/{}.png", "sad/{}.png"], "a/happy/1.png"),
        (["happy/{}.png", "sad/{}.png"], "preview.png"),
        (["train/happy/{}.png", "test/sad/{}.png"], "extra/sad/1.png"),
        (["x/train/happy/{}.png", "x/test/sad/{}.png"], "a/train/sad/1.png"),
        (["train/happy/{}.png", "test/sad/{}.png"], "sad/1.png"),
        (["happy/{}.png", "sad/{}.png"], "happy/Training_day.png"),
        (["happy/Training_{}.png", "sad/PublicTest_{}.png"], "happy/a.png"),
    ],
)
def test_the_file_that_is_out_of_line_with_most_is_named(tmp_path: Path, usual: list[str], stray: str) -> None:
    files = {place.format(number): FACE for place in usual for number in range(3)}
    assert refusal(tmp_path, {stray: FACE} | files).startswith(f"{stray} ")


@pytest.mark.parametrize(
    ("usual", "stray"),
    [
        (
            ["train/{}/Training_{}.png", "test/{}/PrivateTest_{}.png", "test/{}/PublicTest_{}.png"],
            "test/sad/Training_9.png",
        ),
        (["train/{}/Training_{}.png", "test/{}/PrivateTest_{}.png"], "train/sad/PublicTest_9.png"),
        (["train/{}/Training_{}.png", "test/{}/{}.png"], "train/sad/PrivateTest_9.png"),
        (["train/{}/Training_{}.png", "val/{}/PublicTest_{}.png"], "val/sad/PrivateTest_9.png"),
        (["train/{}/{}.png", "val/{}/{}.png"], "val/sad/Training_9.png"),
        (["train/{}/Training_{}.png", "val/{}/{}.png", "test/{}/PrivateTest_{}.png"], "test/sad/PublicTest_9.png"),
        (["train/{}/Training_{}.png", "test/{}/{}.png"], "test/sad/PublicTest_9.png"),
    ],
)
def test_a_file_whose_prefix_contradicts_its_split_folder_is_named(
    tmp_path: Path, usual: list[str], stray: str
) -> None:
    files = {place.format(name, number): FACE for place in usual for name in ("happy", "sad") for number in range(3)}
    assert set(read_faces(write_folder(tmp_path / "agreeing", files)).usage) > {"Training"}
    said = refusal(tmp_path / "resplit", {stray: FACE} | files)
    assert said.startswith(f"{stray} is of {Path(stray).name.partition('_')[0]} by its prefix, and of ")
    assert said.endswith("; rename it and its like where the folders hold, or move them")


def test_an_empty_class_folder_says_what_it_holds_instead(tmp_path: Path) -> None:
    said = refusal(tmp_path, {"happy/1.png": FACE, "angry/1.png": FACE, "sad/1.xyz": b"x"})
    assert said == "class folder sad holds no image but 1.xyz; fill or remove it"


def test_an_archive_within_is_named(tmp_path: Path) -> None:
    inner = write_zip(tmp_path / "faces.zip", {"happy/1.png": FACE}).read_bytes()
    with pytest.raises(UserError, match=r"no images in it but train/faces\.zip, an archive; unpack it"):
        read_faces(write_zip(tmp_path / "outer.zip", {"train/faces.zip": inner, "README.txt": b"x"}))


def test_spellings_and_synonyms_of_one_emotion_are_one_class_and_counted(tmp_path: Path) -> None:
    files = {f"{name}/{n}.png": FACE for n, name in enumerate(("Anger", "angry", "Contempt", "contempt", "Happy"))}
    found = read_faces(write_folder(tmp_path, files))
    assert sorted(found.emotion) == ["angry", "angry", "contempt", "contempt", "happy"]
    assert found.converted == {"Anger taken as angry": 1, "Contempt taken as contempt": 1}


def test_folders_that_are_numbers_are_named_by_data_emotions(tmp_path: Path) -> None:
    write_folder(tmp_path, {f"{number}/{number}.png": FACE for number in range(1, 8)})
    assert set(read_faces(tmp_path, Naming("rafdb")).emotion) == set("1234567")
    assert set(read_faces(tmp_path, Naming("rafdb", {"1": "Surprise", "2": "fear"})).emotion) == {
        *("surprise", "fear"),
        *"34567",
    }
    with pytest.raises(UserError, match="class folder 7: unknown emotion '7'"):
        read_faces(tmp_path, Naming("fer2013"))


# Sizes


def sized(sizes: list[tuple[int, int]]) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    faces = [png(rng.integers(0, 256, size, dtype=np.uint8)) for size in sizes]
    return {f"{'happy' if n % 2 else 'sad'}/{n}.png": face for n, face in enumerate(faces)}


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("odd", [0, 1, 7, 40])
def test_differing_sizes_become_that_of_most_and_the_first_that_differs_is_named(
    tmp_path: Path, form: str, odd: int
) -> None:
    sizes = [(100, 90)] * 41
    sizes[odd] = (99, 100)
    found = read_faces(WRITERS[form](tmp_path / "packed", sized(sizes)))
    assert found.images.shape == (41, 100, 90)
    name = f"{'happy' if odd % 2 else 'sad'}/{odd}.png"
    assert found.converted == {f"resized to 90x100, first {name} of 100x99": 1}


def test_where_no_size_is_that_of_more_than_half_all_become_48x48(tmp_path: Path) -> None:
    found = read_faces(write_folder(tmp_path, sized([(60, 60), (60, 60), (50, 50), (48, 48)])))
    assert found.images.shape == (4, 48, 48)
    assert list(found.converted.values()) == [3]


def test_a_picture_that_stands_upright_by_its_tag_alone_counts_as_it_stands(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    buffer = io.BytesIO()
    Image.new("L", (60, 48), 9).save(buffer, "PNG", exif=exif)
    files = {"happy/1.png": png(np.zeros((60, 48), np.uint8)), "happy/2.png": buffer.getvalue()}
    found = read_faces(write_folder(tmp_path, files | {"sad/1.png": png(np.zeros((9, 9), np.uint8))}))
    assert found.images.shape == (3, 60, 48)


def test_fer2013_s_tree_is_converted_in_nothing(tmp_path: Path) -> None:
    assert not read_faces(write_zip(tmp_path / "faces.zip", tree(random_faces()))).converted
