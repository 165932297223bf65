from __future__ import annotations

import os
from pathlib import Path

import pytest
from face_files import png, random_faces, write_folder

from fer_experiments.data.folders import read_plain, walk
from fer_experiments.data.names import Naming
from fer_experiments.data.readers import read_faces
from fer_experiments.errors import UserError

FACE = png(random_faces(1).images[0])


def no_error(error: OSError) -> None:
    raise AssertionError(error)


def listed(top: Path) -> list[str]:
    return [str((Path(folder) / name).relative_to(top)) for folder, _, names in walk(top, no_error) for name in names]


def test_files_come_in_natural_order_and_hidden_ones_not_at_all(tmp_path: Path) -> None:
    write_folder(tmp_path, dict.fromkeys(["b/2", "b/10", "a", ".git/x", "__MACOSX/x", "b/.x", "b/c/1"], b""))
    assert listed(tmp_path) == ["a", "b/2", "b/10", "b/c/1"]


@pytest.mark.parametrize("target", ["..", "../..", "../../..", "."])
def test_links_upwards_end_and_are_counted(tmp_path: Path, target: str) -> None:
    files = {f"data/{name}/{number}.png": FACE for name in ("angry", "happy", "sad") for number in range(2)}
    write_folder(tmp_path, files)
    for name in ("angry", "happy", "sad"):
        (tmp_path / "data" / name / "up").symlink_to(target)
    found = read_faces(tmp_path / "data")
    assert len(found) == 6 and found.converted == {"other files ignored": 3}


def test_links_that_lead_to_each_other_end(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / "data" / name).mkdir(parents=True)
        for other in "abc":
            (tmp_path / "data" / name / other).symlink_to(f"../{other}")
    told: list[OSError] = []
    assert len(list(walk(tmp_path / "data", told.append))) < 10
    assert all("by a link it is the same folder as" in str(error) for error in told)


def test_a_folder_that_is_reached_twice_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"data/happy/1.png": FACE, "data/sad/1.png": FACE})
    (tmp_path / "data" / "joyous").symlink_to("happy")
    with pytest.raises(UserError, match=r"joyous: .*by a link it is the same folder as .*happy"):
        read_faces(tmp_path / "data")


def test_links_to_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    write_folder(tmp_path, {"far/1/a.png": FACE, "far/2/b.png": FACE})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "happy").symlink_to("../far/1")
    (tmp_path / "data" / "sad").symlink_to("../far/2")
    assert sorted(read_faces(tmp_path / "data").emotion) == ["happy", "sad"]


@pytest.mark.parametrize("name", ["happy/2.png", "angry", "happy/notes"])
def test_a_link_to_nowhere_is_said_to_be_one_whatever_its_name(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path, {"happy/1.png": FACE, "sad/1.png": FACE})
    (tmp_path / name).symlink_to("/nowhere/x.png")
    with pytest.raises(UserError, match=rf"{name}: cannot be read \(a link to /nowhere/x\.png, which is not there"):
        read_faces(tmp_path)


def test_a_pipe_is_never_waited_for(tmp_path: Path) -> None:
    write_folder(tmp_path, {"happy/1.png": FACE, "sad/1.png": FACE})
    os.mkfifo(tmp_path / "happy" / "pipe")
    assert len(read_faces(tmp_path)) == 2
    os.mkfifo(tmp_path / "happy" / "2.png")
    with pytest.raises(UserError, match=r"happy/2\.png: cannot be read \(not a plain file\)"):
        read_faces(tmp_path)
    with pytest.raises(UserError, match="neither a file nor a folder"):
        read_faces(tmp_path / "happy" / "pipe")


def test_only_the_first_bytes_are_read_where_no_more_are_wanted(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abcdef")
    assert (read_plain(tmp_path / "a", 2), read_plain(tmp_path / "a")) == (b"ab", b"abcdef")


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\nb", "\u202eabc", " "])
def test_a_class_that_cannot_be_shown_is_refused_and_a_file_is_shown_by_codes(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "classes", {f"{name}/1.png": FACE, "sad/1.png": FACE})
    write_folder(tmp_path / "files", {f"happy/{name}.png": FACE[:99], "sad/1.png": FACE})
    for folder in ("classes", "files"):
        with pytest.raises(UserError) as caught:
            read_faces(tmp_path / folder, Naming("mine"))
        assert str(caught.value).isprintable()
        assert folder == "files" or "can be no class (empty, or not to be shown); rename it" in str(caught.value)
