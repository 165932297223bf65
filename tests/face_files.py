"""Small face data, and every form on disk that the readers know."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from fer_experiments.data.faces import EMOTIONS, USAGES, Faces


def random_faces(per_cell: int = 3, seed: int = 0, usages: tuple[str, ...] = USAGES) -> Faces:
    """`per_cell` different images of every emotion in every usage."""
    rng = np.random.default_rng(seed)
    usage, emotion = (axis.ravel() for axis in np.meshgrid(np.repeat(usages, per_cell), EMOTIONS))
    images = rng.integers(0, 256, (len(usage), 48, 48), np.uint8)
    return Faces(images, emotion, usage, np.array([f"face-{row}" for row in range(len(usage))]))


def csv_text(faces: Faces, columns: tuple[str, ...] = ("emotion", "pixels", "Usage")) -> str:
    lines = [",".join(columns)]
    for image, emotion, usage in zip(faces.images, faces.emotion, faces.usage, strict=True):
        fields = {
            "emotion": str(EMOTIONS.index(emotion)),
            "pixels": " ".join(map(str, image.ravel().tolist())),
            "Usage": str(usage),
        }
        lines.append(",".join(fields[column.strip()] for column in columns))
    return "\n".join(lines) + "\n"


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def tree(faces: Faces) -> dict[str, bytes]:
    """Files as in Kaggle's msambare/fer2013: <train|test>/<emotion>/<Usage>_<number>.png."""
    return {
        f"{'train' if usage == 'Training' else 'test'}/{emotion}/{usage}_{row}.png": png(image)
        for row, (image, emotion, usage) in enumerate(zip(faces.images, faces.emotion, faces.usage, strict=True))
    }


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


Files = Mapping[str, bytes] | Iterable[tuple[str, bytes]]  # the latter may have a name twice


def write_zip(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items() if isinstance(files, Mapping) else files:
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: Files, mode: Literal["w", "w:gz", "w:bz2", "w:xz"] = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items() if isinstance(files, Mapping) else files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


WRITERS: dict[str, Callable[[Path, Mapping[str, bytes]], Path]] = {
    "folder": write_folder,
    "zip": write_zip,
    "tar.gz": write_tar,
}
