"""Colours and finish that the figures share; matplotlib's object interface alone is used, which any thread may."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from fer_experiments.terminal import counted

# Okabe and Ito (2008): told apart by colour-blind readers.
BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000",
)  # fmt: skip
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, BLACK)
GRAY = "#777777"


def finish(axes: Axes) -> None:
    """A faint grid, and no frame at the top and the right."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def png(figure: Figure) -> bytes:
    """The picture as a file, its texts as they stand; drawn once, as `savefig` would not where there is a layout."""
    file, canvas = io.BytesIO(), FigureCanvasAgg(figure)
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a class may be called $x^$, which is no formula
    with _boxes_for_missing_glyphs():
        canvas.draw()
    # Without the opaque fourth channel, and packed at the fastest level: as small, in half the time.
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(
        file, "png", compress_level=1, dpi=(figure.dpi, figure.dpi)
    )
    return file.getvalue()


def text_size(figure: Figure, text: str, **kwargs: Any) -> tuple[float, float]:
    """Width and height in inches that a text takes in a figure; kwargs as for `Figure.text`."""
    canvas = FigureCanvasAgg(figure)
    with _boxes_for_missing_glyphs():
        box = Text(0, 0, text, figure=figure, parse_math=False, **kwargs).get_window_extent(canvas.get_renderer())
    return box.width / figure.dpi, box.height / figure.dpi


@contextlib.contextmanager
def _boxes_for_missing_glyphs() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a class in Chinese is drawn as boxes
        yield


def scored_images(number: int, repeats: int = 1) -> str:
    """So many predictions as images, with how many fits have scored each of them."""
    return counted(number // repeats, "image") + (f" by {repeats} fits" if repeats > 1 else "")
