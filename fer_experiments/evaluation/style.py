"""Colours and finish that the figures share; matplotlib's object interface alone is used, which any thread may."""

from __future__ import annotations

import io
import warnings

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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
    """The picture as a file, drawn once: `savefig` draws all of it one time more where a figure has a layout."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a class in Chinese is drawn as boxes
        FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]
    return file.getvalue()


def scored_images(number: int, repeats: int = 1) -> str:
    """So many predictions as images, with how many fits have scored each of them."""
    return counted(number // repeats, "image") + (f" by {repeats} fits" if repeats > 1 else "")
