"""Small face data, drawn once."""

from __future__ import annotations

from pathlib import Path

import pytest
from face_files import csv_text, random_faces

from fer_experiments.data.faces import Faces


@pytest.fixture(scope="session")
def faces() -> Faces:
    """Three images of every emotion in every usage."""
    return random_faces()


@pytest.fixture(scope="session")
def faces_csv(faces: Faces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces") / "fer2013.csv"
    path.write_text(csv_text(faces))
    return path
