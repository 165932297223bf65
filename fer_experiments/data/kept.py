"""Faces that were read or drawn once, kept in the cache and mapped from there: 36,000 pictures take seconds to decode.

    <cache>/faces/<key>/{images,emotion,usage,ids,digests}.npy, converted.json

They lie in canonical order. The key says which files were read, by size and times, and as what (of drawn faces that is
the program that draws them); converted.json is written last.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock

from fer_experiments.data.faces import Faces
from fer_experiments.data.folders import walk
from fer_experiments.files import digest, write_atomically, write_json

VERSION = 2  # raise it when other faces come to be read from the same files
ARRAYS = ("images", "emotion", "usage", "ids", "digests")
LAST = "converted.json"


Ordered = tuple[Faces, np.ndarray]


def kept_faces(path: Path, said: Sequence[object], cache: Path, read: Callable[[], Ordered]) -> Ordered:
    """Faces and digests as `canonical_order` gives them, from the cache where the files at `path` are the same still.

    said: what else they follow from, as JSON has it. Where there are none it is what `read` gives, which raises what it
    does. A cache that cannot be written keeps nothing.
    """
    folder = cache / "faces" / _key(path, said)[:16]
    if (kept := _opened(folder)) is not None:
        return kept
    faces, digests = read()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            for name, array in zip(ARRAYS, (*_arrays(faces), digests), strict=True):
                write_atomically(folder / f"{name}.npy", partial(np.save, arr=array))
            write_json(folder / LAST, dict(faces.converted))
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        return faces, digests
    return _opened(folder) or (faces, digests)


def _arrays(faces: Faces) -> tuple[np.ndarray, ...]:
    return faces.images, faces.emotion, faces.usage, faces.ids


def _opened(folder: Path) -> Ordered | None:
    try:
        converted = json.loads((folder / LAST).read_bytes())
        # asarray: what is taken from an np.memmap is one too, and would be pickled as such
        images, emotion, usage, ids, digests = (
            np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in ARRAYS
        )
    except Exception:  # what NumPy makes of a damaged header is any error of Python's parser
        return None
    faces = Faces(images, emotion, usage, ids, converted)
    return (faces, digests) if len({len(array) for array in (*_arrays(faces), digests)}) == 1 else None


def _key(path: Path, said: Sequence[object]) -> str:
    return digest([VERSION, str(path.resolve()), *said, *_stamps(path)])


def _stamps(path: Path) -> Iterator[tuple[str, int, int, int]]:
    """Each file and folder with its size, and the times at which its content and what is known of it changed (ns).

    The second of these cannot be set: a file that is replaced by one of the same size and time has another.
    """
    places = [path]
    if path.is_dir():
        found = list(walk(path, lambda error: None))
        places = [Path(folder) / name for folder, _, names in found for name in (".", *names)]
    for place in places:
        try:
            status = place.stat()
        except OSError:  # the reader says what is wrong with it
            continue
        yield os.fspath(place), status.st_size, status.st_mtime_ns, status.st_ctime_ns
