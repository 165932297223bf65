from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fer_experiments.data.demo import INTENSITY, SHARES, draw_faces
from fer_experiments.data.faces import EMOTIONS, USAGES, Faces
from fer_experiments.errors import UserError


@pytest.fixture(scope="module")
def faces() -> Faces:
    return draw_faces(4000, seed=0)


def test_faces_are_48x48_gray_with_an_emotion_a_usage_and_an_id(faces: Faces) -> None:
    assert faces.images.shape == (4000, 48, 48)
    assert faces.images.dtype == np.uint8
    assert set(faces.emotion) == set(EMOTIONS)
    assert set(faces.usage) == set(USAGES)
    assert faces.ids[0] == "demo-000000"
    assert len(set(faces.ids)) == len(faces)
    assert list(faces.ids) == sorted(faces.ids)


def test_emotions_have_their_shares(faces: Faces) -> None:
    assert set(SHARES) == set(EMOTIONS)
    assert sum(SHARES.values()) == pytest.approx(1)
    for emotion, share in SHARES.items():
        assert np.sum(faces.emotion == emotion) == round(share * len(faces))


def test_every_emotion_is_split_80_10_10(faces: Faces) -> None:
    for emotion in EMOTIONS:
        usage = faces.usage[faces.emotion == emotion]
        for part, share in zip(USAGES, (0.8, 0.1, 0.1), strict=True):
            assert np.sum(usage == part) == pytest.approx(share * len(usage), abs=2)


def test_no_two_images_are_identical_and_none_is_flat(faces: Faces) -> None:
    assert len({image.tobytes() for image in faces.images}) == len(faces)
    assert faces.images.std(axis=(1, 2)).min() > 5


def test_light_and_contrast_vary(faces: Faces) -> None:
    brightness, contrast = faces.images.mean(axis=(1, 2)), faces.images.std(axis=(1, 2))
    assert brightness.std() > 25
    assert contrast.std() > 10


def test_the_bytes_are_the_same_on_every_platform() -> None:
    # A new drawing has a new hash: write it here. A hash that differs by machine would give datasets that do, too.
    digest = hashlib.sha256(draw_faces(200, seed=1).images.tobytes()).hexdigest()
    assert digest == "e45f21c78975a2c21ab93a9014477e21d62b6bf0a15adedeb18a69ecaddbfded"


@settings(max_examples=10, deadline=None)
@given(size=st.integers(1, 150), seed=st.integers(0, 2**32))
def test_size_and_seed_decide_everything(size: int, seed: int) -> None:
    one, again, other = draw_faces(size, seed), draw_faces(size, seed), draw_faces(size, seed + 1)
    assert len(one) == size
    for name in ("images", "emotion", "usage", "ids"):
        assert np.array_equal(getattr(one, name), getattr(again, name))
    assert not np.array_equal(one.images, other.images)


def test_no_faces_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"data\.demo_size=0"):
        draw_faces(0, seed=0)


def probe_accuracy(faces: Faces) -> float:
    """Happy against angry, fear and sad: a linear probe on gradients averaged over 4x4 pixels, on unseen faces."""
    faces = faces.take(np.isin(faces.emotion, ["happy", "angry", "fear", "sad"]))
    pixels = faces.images.astype(np.float32)
    down, right = np.gradient(pixels, axis=(1, 2))
    signed = np.stack([np.maximum(part, 0) for part in (down, -down, right, -right)], axis=1)
    cells = signed.reshape(len(faces), 4, 12, 4, 12, 4).mean(axis=(3, 5)).reshape(len(faces), -1)
    happy, train = faces.emotion == "happy", faces.usage == "Training"
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=200)).fit(cells[train], happy[train])
    return float(probe.score(cells[~train], happy[~train]))


def test_happy_is_separable_but_not_perfectly(faces: Faces) -> None:
    majority = 1 - SHARES["happy"] / sum(SHARES[emotion] for emotion in ("happy", "angry", "fear", "sad"))
    assert majority + 0.08 < probe_accuracy(faces) < 0.95


def test_strong_expressions_are_easier(faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_experiments.data.demo.INTENSITY", (INTENSITY[1], INTENSITY[1]))
    assert probe_accuracy(draw_faces(4000, seed=0)) > probe_accuracy(faces) + 0.02
