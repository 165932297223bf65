"""Arrays on disk in shards: written whole or not at all, checked, and read as memory maps.

<fingerprint>/<view>/<first row>-<layer>.npy   rows of one layer's features
<fingerprint>/<view>/<first row>.json          written after them: their shapes, dtype, checksums and the folder
<fingerprint>/<view>/manifest.json             written when all are there and checked

What was copied to another folder than it was made for is not taken there; of older versions, records do not say it.
"""

from __future__ import annotations

import json
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fer_experiments.files import digest, write_atomically, write_json

MANIFEST = "manifest.json"


def write_shard(folder: Path, start: int, arrays: dict[str, np.ndarray]) -> None:
    """Stores the rows from `start` on: a C-contiguous array [rows, ...] for each layer's name."""
    record = []
    for number, (layer, array) in enumerate(arrays.items()):
        write_atomically(folder / _name(start, number), partial(np.save, arr=array))
        entry = {"layer": layer, "shape": array.shape, "dtype": str(array.dtype), "crc32": zlib.crc32(array.data)}
        record.append({**entry, "of": _of(folder)})
    write_json(_record(folder, start), record)


def is_intact(folder: Path, start: int, rows: int, dtype: str) -> bool:
    """Whether a shard of that many rows is there, with the content that was written; reads all of it."""
    try:
        record = json.loads(_record(folder, start).read_bytes())
        arrays = [np.load(folder / _name(start, layer), mmap_mode="r") for layer in range(len(record))]
        return bool(arrays) and all(
            len(array) == rows
            and str(array.dtype) == dtype == entry["dtype"]
            and list(array.shape) == entry["shape"]
            and zlib.crc32(array.data) == entry["crc32"]
            and entry.get("of", _of(folder)) == _of(folder)
            for array, entry in zip(arrays, record, strict=True)
        )
    except Exception:  # what NumPy makes of a damaged header is any error of Python's parser
        return False


def write_manifest(folder: Path, content: dict[str, Any], starts: list[int]) -> None:
    """Declares the shards complete.

    It says `content`, the layers with their shape per image, and each file with its size and time.
    """
    record = json.loads(_record(folder, starts[0]).read_bytes())
    names = [_name(start, layer) for start in starts for layer in range(len(record))]
    files = {name: _stamp(folder / name) for name in names}
    layers = {entry["layer"]: entry["shape"][1:] for entry in record}
    manifest = {**content, "view": folder.name, "layers": layers, "starts": starts, "files": files}
    write_json(folder / MANIFEST, {**manifest, "digest": digest(manifest)})


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest, when it is as it was written, for this folder, and every file has the size and time it had then."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        written = manifest.pop("digest", None)  # of older versions, none
        unchanged = all(_stamp(folder / name) == stamp for name, stamp in manifest["files"].items())
        whole = manifest.keys() >= {"dtype", "count", "fingerprint", "layers", "starts"}
        here = f"{manifest['fingerprint'][:16]}/{manifest.get('view', folder.name)}" == _of(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if unchanged and whole and here and written in (None, digest(manifest)) else None


def open_shards(folder: Path, manifest: dict[str, Any]) -> list[list[np.ndarray]]:
    """Memory maps [layer][shard] of what a manifest lists."""
    # asarray: indexing an np.memmap costs several microseconds more than indexing an array on the same memory
    return [
        [np.asarray(np.load(folder / _name(start, layer), mmap_mode="r")) for start in manifest["starts"]]
        for layer in range(len(manifest["layers"]))
    ]


def _of(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


def _name(start: int, layer: int) -> str:
    return f"{start:07d}-{layer}.npy"


def _record(folder: Path, start: int) -> Path:
    return folder / f"{start:07d}.json"


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
