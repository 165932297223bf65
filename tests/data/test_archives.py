from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from face_files import WRITERS, write_tar, write_zip
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_experiments.data.archives import open_container
from fer_experiments.data.readers import read_faces
from fer_experiments.errors import UserError

FILES = {"top/a.txt": b"first " * 50, "top/b.txt": bytes(range(256))}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("packed")
    return {"zip": write_zip(folder / "whole.zip", FILES), "tar.gz": write_tar(folder / "whole.tar.gz", FILES)}


def read_all(path: Path) -> dict[str, bytes]:
    with open_container(path) as container:
        return {name: container.read(name) for name in container.files}


@pytest.mark.parametrize("form", WRITERS)
def test_files_are_listed_and_read_and_hidden_ones_left_out(tmp_path: Path, form: str) -> None:
    extra = dict.fromkeys(["top/.DS_Store", "top/.git/a.txt", "__MACOSX/top/._a.txt", "__MACOSX/top/a.txt"], b"x")
    assert read_all(WRITERS[form](tmp_path / "packed", FILES | extra)) == FILES


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
@pytest.mark.parametrize(
    "name", ["../evil.png", "happy/../../evil.png", "/etc/evil.png", "..\\evil.png", "C:\\evil.png"]
)
def test_a_member_that_leads_out_is_refused(tmp_path: Path, form: str, name: str) -> None:
    path = WRITERS[form](tmp_path / "evil", FILES | {name: b"x"})
    with pytest.raises(UserError, match="leads out of the archive"):
        read_faces(path)


def test_a_link_in_a_tar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "link.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("happy/1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link, io.BytesIO())
    with pytest.raises(UserError, match=r"happy/1\.png is a link or a device"):
        read_faces(path)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_compression_of_a_tar_is_read_whatever_its_suffix(tmp_path: Path, mode: str) -> None:
    assert read_all(write_tar(tmp_path / "packed", FILES, mode)) == FILES


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
@pytest.mark.parametrize("other", ["top/a.txt", "./top/a.txt", "top//a.txt"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(tmp_path: Path, form: str, other: str) -> None:
    writers = {"zip": write_zip, "tar.gz": write_tar}
    path = writers[form](tmp_path / "twice", [*FILES.items(), (other, b"another")])
    with pytest.raises(UserError, match=r"twice: top/a\.txt is in it twice, and which is meant cannot be known"):
        read_all(path)


@pytest.mark.parametrize("form", WRITERS)
def test_names_that_differ_in_capitals_are_two(tmp_path: Path, form: str) -> None:
    files = {"a/x.txt": b"one", "A/x.txt": b"two", "a/X.txt": b"three"}
    assert read_all(WRITERS[form](tmp_path / "packed", files)) == files


def test_a_zip_of_backslashes_has_folders(tmp_path: Path) -> None:
    path = tmp_path / "windows.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("top\\", "top\\a.txt", "top\\b.txt"):
            member = zipfile.ZipInfo("x")
            member.filename = name
            archive.writestr(member, FILES.get(name.replace("\\", "/"), b""))
    assert read_all(path) == FILES
    with open_container(path) as container:
        assert container.folders == ("top",)


@given(st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_a_plain_tar_that_is_cut_between_two_members_is_refused(packed: dict[str, Path], blocks: int) -> None:
    plain = write_tar(packed["zip"].with_name("plain.tar"), FILES, "w")
    content = plain.read_bytes()[: 512 * blocks]
    if content.endswith(bytes(512)):
        return  # its end has begun
    plain.write_bytes(content)
    with pytest.raises(UserError, match="truncated or damaged"):
        read_all(plain)


def test_only_the_first_bytes_are_unpacked_where_no_more_are_wanted(packed: dict[str, Path]) -> None:
    for path in packed.values():
        with open_container(path) as container:
            assert container.read("top/a.txt", 7) == b"first f"


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "secret.zip", {"happy/1.png": b"x"})
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # set bit 0, "encrypted", in both headers
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"secret\.zip: the archive is encrypted"):
        read_faces(path)


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_truncated_archive_is_refused(packed: dict[str, Path], form: str, data: st.DataObject) -> None:
    content = packed[form].read_bytes()
    cut = packed[form].with_name("cut")
    cut.write_bytes(content[: data.draw(st.integers(2, len(content) - 1))])
    with pytest.raises(UserError, match="truncated or damaged"):
        read_all(cut)


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_flipped_byte_never_changes_a_file_s_content(packed: dict[str, Path], form: str, data: st.DataObject) -> None:
    content = bytearray(packed[form].read_bytes())
    content[data.draw(st.integers(2, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    flipped = packed[form].with_name("flipped")
    flipped.write_bytes(content)
    try:
        found = read_all(flipped)
    except UserError as refusal:
        assert "\n" not in str(refusal)
    else:
        assert set(found.values()) <= set(FILES.values())
