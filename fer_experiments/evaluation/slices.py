"""Slices: parts of a split on which a model may be worse than on the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

QUARTERS = 4
NEAR_TWIN = {True: "near_twin", False: "no_near_twin"}  # whether Training has a near twin of the image


def brightness(images: np.ndarray) -> np.ndarray:
    """The mean gray of images uint8 [n, h, w]: [n]."""
    return images.mean(axis=(1, 2))


def contrast(images: np.ndarray) -> np.ndarray:
    """The standard deviation of their grays: [n]."""
    return images.std(axis=(1, 2))


def sharpness(images: np.ndarray) -> np.ndarray:
    """The variance of the Laplacian, [n]: Pech-Pacheco et al. 2000."""
    gray = images.astype("float32")
    middle = gray[:, 1:-1, 1:-1]
    around = gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:]
    return (around - 4 * middle).var(axis=(1, 2))


QUALITIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    quality.__name__: quality for quality in (brightness, contrast, sharpness)
}


def slice_names(emotions: Iterable[str], twins: bool) -> list[str]:
    """The slices of a split with images of these emotions; twins: near twins were sought."""
    names = [f"emotion_{emotion}" for emotion in sorted(set(emotions))]
    names += [f"{quality}_q{quarter}" for quality in QUALITIES for quarter in range(1, QUARTERS + 1)]
    return names + (list(NEAR_TWIN.values()) if twins else [])


def slices(images: np.ndarray, emotions: np.ndarray, near_training: np.ndarray | None) -> dict[str, np.ndarray]:
    """The rows of each slice that has images, by name; of a quality, q1 has the lowest quarter of the images.

    images: uint8 [n, h, w]. emotions: str [n]. near_training: bool [n], None where near twins were not sought.
    """
    belongs = {f"emotion_{emotion}": emotions == emotion for emotion in np.unique(emotions)}
    for name, quality in QUALITIES.items():
        ranks = np.argsort(np.argsort(quality(images), kind="stable"))
        quarters = ranks * QUARTERS // len(images) + 1
        belongs |= {f"{name}_q{quarter}": quarters == quarter for quarter in range(1, QUARTERS + 1)}
    if near_training is not None:
        belongs |= {name: near_training == is_near for is_near, name in NEAR_TWIN.items()}
    return {name: np.flatnonzero(of) for name, of in belongs.items() if of.any()}


def emotion_errors(
    emotions: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """What the images of each source emotion are taken for.

    emotions: str [n], in groups of which `classes` are the names. A row an emotion, by class and then by name: emotion,
    class, images, error_rate (share in another class than its own), and `as <class>` (share in it) for each class.
    """
    import pandas as pd

    predicted = probabilities.argmax(axis=1)
    rows = []
    for label, emotion in sorted({(int(y), str(e)) for y, e in zip(labels, emotions, strict=True)}):
        chosen = predicted[(emotions == emotion) & (labels == label)]
        shares = {f"as {name}": float(np.mean(chosen == c)) for c, name in enumerate(classes)}
        error = float(np.mean(chosen != label))
        rows.append({"emotion": emotion, "class": classes[label], "images": len(chosen), "error_rate": error, **shares})
    return pd.DataFrame(rows)
