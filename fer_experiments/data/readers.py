"""Readers that detect what they are given: the competition's CSV files, and trees of class folders, packed or not."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path, PurePosixPath

from fer_experiments.config import DataConfig, project_root
from fer_experiments.config.commands import get_data_command
from fer_experiments.config.folders import expanded
from fer_experiments.data.archives import Container, is_archive, open_container, open_unpacked
from fer_experiments.data.faces import Faces
from fer_experiments.data.folders import read_plain, walk
from fer_experiments.data.images import HEAD, begins_picture
from fer_experiments.data.names import KNOWN, Naming, emotion_named
from fer_experiments.data.tables import has_faces, read_table
from fer_experiments.data.trees import pictures, read_tree
from fer_experiments.errors import UserError

COMPETITION_FILES = ("fer2013.csv", "icml_face_data.csv")
PACKED = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")  # how FER2013 may end under data/
LINE = 4096  # bytes that hold a table's header
FOREIGN = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive, which is not read; unpack it and give the folder",
    b"Rar!\x1a\x07": "a RAR archive, which is not read; unpack it and give the folder",
    b"\x28\xb5\x2f\xfd": "a zstd file, which is not read; unpack it and give what is in it",
    b"PAR1": "a Parquet file, which is not read; save it as CSV",
    b"\x89HDF": "an HDF5 file, which is not read; save its images as <class>/<image>",
    b"\x93NUMPY": "a NumPy file, which is not read; save its images as <class>/<image>",
    b"\xd0\xcf\x11\xe0": "an old Excel file, which is not read; save it as CSV",
    b"<": "a page of HTML or XML, no data: a download that was refused? Fetch it again",
}


def find_source(cfg: DataConfig) -> Path | None:
    """Return where the faces of `cfg` are read from, None for those that are drawn.

    Raises UserError for a path that is not given or not there.
    """
    if cfg.source == "demo":
        return None
    if cfg.path is None and cfg.source != "fer2013":
        raise UserError(f"data.path: data={cfg.name} needs the path of a folder or an archive of class folders")
    path = expanded(cfg.path, "data.path") if cfg.path is not None else find_fer2013()
    if path is None:
        raise UserError(
            f"FER2013 is not at hand: run `{get_data_command()}`, or give its path as $FER2013 or data.path"
        )
    if not path.exists():
        what = "FER2013's zip, CSV or folder" if cfg.source == "fer2013" else "a folder or an archive of class folders"
        raise UserError(f"data.path={path}: no such file or folder; give the path of {what}")
    return path


def find_fer2013() -> Path | None:
    """Return $FER2013, else the first data/fer2013* under the current folder or the project's root, else None.

    What is none by its name or content is passed over: an empty folder, a table without faces. Raises UserError where
    $FER2013 is set and nothing is there.
    """
    if given := os.environ.get("FER2013"):
        path = expanded(given, "$FER2013")
        if not path.exists():
            raise UserError(f"$FER2013: no file or folder {path}; mend or unset it")
        return path
    for folder in dict.fromkeys((Path.cwd() / "data", project_root() / "data")):
        for path in sorted(folder.glob("fer2013*")):
            if _may_be_fer2013(path):
                return path
    return None


def _may_be_fer2013(path: Path) -> bool:
    if path.is_dir():
        return any(files for _, _, files in walk(path, lambda error: None))
    if path.name.lower().endswith(PACKED) or path.name == COMPETITION_FILES[0]:
        return True  # what is wrong with it is said when it is read
    if path.suffix and not path.name.lower().endswith((".csv", ".csv.gz")):
        return False  # .part
    try:
        return is_archive(path) or has_faces(_head(path))
    except (OSError, UserError):
        return False


def _head(path: Path) -> bytes:
    with open_unpacked(path) as file:
        return file.read(LINE)


def read_faces(path: Path, naming: Naming | None = None) -> Faces:
    """Read the labelled faces of a table, a folder, a zip or a tar, in the order found there.

    Tables: see `tables`. Folders: <class>/<image> or <split>/<class>/<image>. naming: what labels mean; None: FER2013's
    rules. Raises UserError naming file, row or member for anything that cannot be read exactly.
    """
    naming = naming or Naming()
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; mend data.path")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: no permission to read it; mend its permissions")
    if path.is_file() and path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty; fetch it again")
    if not (path.is_file() or path.is_dir()):
        raise UserError(f"{path}: neither a file nor a folder; mend data.path")
    if path.is_file() and not is_archive(path):
        _refuse_foreign(path)
        return read_table(str(path), partial(open_unpacked, path), naming)
    with open_container(path) as container:
        names = pictures(container)
        if table := _table(container, names):
            return read_table(str(path / table), partial(container.open, table), naming)
        return read_tree(container, names, naming)


def _refuse_foreign(path: Path) -> None:
    head = read_plain(path, HEAD)
    for magic, what in FOREIGN.items():
        if head.lstrip().startswith(magic):
            raise UserError(f"{path}: {what}")
    if begins_picture(head):
        raise UserError(f"{path}: a picture; give a folder or an archive of class folders")


def _table(container: Container, images: list[str]) -> str | None:
    """Return the CSV to read: one with the competition's name, or the only one with faces; None for class folders.

    Raises UserError for several sources of labels, which may say different things.
    """
    tables = [name for name in container.files if name.lower().endswith(".csv")]
    found = [name for name in tables if PurePosixPath(name).name.lower() in COMPETITION_FILES]
    found = found or [name for name in tables if has_faces(container.read(name, LINE))] or ([] if images else tables)
    if len(found) > 1:
        raise UserError(f"{container.path}: several CSV files ({', '.join(found)}); give one of them as data.path")
    folders = {PurePosixPath(name).parent.name for name in images} - {""}
    if found and (len(folders) > 1 or any(emotion_named(folder) in KNOWN for folder in folders)):
        raise UserError(
            f"{container.path}: faces in {found[0]} and pictures in folders ({images[0]}); give the CSV as data.path, "
            "or move it away"
        )
    return found[0] if found else None
