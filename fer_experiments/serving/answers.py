"""The body of a request to the records of its answer: read in turns with others', and asked in batches with them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments.serving.bodies import Asked, Picture, Refusal, decode, most_images, read_body, search, slices
from fer_experiments.serving.finding import Found
from fer_experiments.serving.turns import QUICK, Batches, Turns

if TYPE_CHECKING:
    from fer_experiments.tracking.classifier import FaceClassifier


async def answers(body: bytearray, classifier: FaceClassifier, turns: Turns, batches: Batches) -> list[dict[str, Any]]:
    """A record an image; others have their turns in between, and it can be cancelled. body: emptied once it is read.

    Raises:
        Refusal: what is wrong with it.
    """
    asked: Asked = await turns.take(len(body), read_body, body, classifier.size)
    body.clear()
    images = asked.images
    if isinstance(images, np.ndarray):
        return predictions(await batches.ask(images), classifier)
    if not asked.find_faces:
        parts = [part async for part in _in_turns(images, decode, classifier, turns)]
        return predictions(await batches.ask(np.concatenate(parts)), classifier)
    found = await _search(images, classifier, turns)
    crops = np.concatenate([each.crops for each in found])
    told = iter(predictions(await batches.ask(crops), classifier) if len(crops) else ())
    return [
        {"faces": [face._asdict() | next(told) for face in each.faces]} | ({"note": each.note} if each.note else {})
        for each in found
    ]


def predictions(probabilities: np.ndarray, classifier: FaceClassifier) -> list[dict[str, Any]]:
    """The records of `FaceClassifier.table`, without the time that a data frame takes."""
    names = [f"probability_{name}" for name in classifier.classes]
    return [
        {"label": label, **dict(zip(names, row, strict=True))}
        for label, row in zip(classifier.labels(probabilities), probabilities.tolist(), strict=True)
    ]


async def _search(pictures: list[Picture], classifier: FaceClassifier, turns: Turns) -> list[Found]:
    """The faces in each picture, together no more than a request may have images."""
    most, found, count = most_images(classifier.size), [], 0
    # Never at once: dlib's detector is not for two threads, and keeps its thread longer than any decoder.
    async with aclosing(_in_turns(pictures, search, classifier, turns, QUICK + 1)) as parts:
        async for part in parts:
            found += part
            if (count := count + sum(len(each.faces) for each in part)) > most:
                raise Refusal(
                    413, f"{count} faces are found by image {len(found) - 1}, more than {most}: ask for fewer at once"
                )
    return found


async def _in_turns(
    pictures: list[Picture],
    work: Callable[[list[Picture], tuple[int, int]], Any],
    classifier: FaceClassifier,
    turns: Turns,
    least: int = 0,
) -> AsyncGenerator[Any, None]:
    """What `work` makes of pictures, some at once. least: units that it counts as at least."""
    left = sum(picture.units for picture in pictures)
    for some in slices(pictures):
        yield await turns.take(max(left, least), work, some, classifier.size)
        left -= sum(picture.units for picture in some)
