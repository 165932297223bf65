"""Faces in files and on standard input, and what predict says of them."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_champion import SIZE

from fer_experiments.config import Config
from fer_experiments.serving.predict import predict


def draw(path: Path, number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    pixels = np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def faces_in(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A folder of three pictures, one of them further down, and two files that are none."""
    (folder / "more").mkdir(parents=True)
    names = ("face-9.png", "face-10.png", "more/face-1.png")
    pixels = {str(folder / name): draw(folder / name, number) for number, name in enumerate(names)}
    (folder / "notes.txt").write_text("no picture")
    (folder / "cut.png").write_bytes((folder / "face-9.png").read_bytes()[:60])
    (folder / ".hidden.png").write_text("no picture")
    return folder, pixels


def said(config: Config, paths: list[str], form: str = "json") -> tuple[int, str]:
    lines: list[str] = []
    return predict(config, paths, form, lines.append), "\n".join(lines)


def give(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
