"""The views of a picture that features are made of: which part of it each shows, mirrored or not.

A name means the same for ever, since it alone tells stored features apart: another window is another name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class View:
    """A window that is brought to the size of the picture, as `backbones.views.shown` does it.

    top, left: where it begins, in sixteenths of the picture's height and width; outside are the nearest pixels.
    part: of height and width, in eighths. mirrored: left and right are exchanged.
    """

    top: int = 0
    left: int = 0
    part: int = 8
    mirrored: bool = False

    @property
    def moved(self) -> bool:
        """Whether the window is another than the picture."""
        return (self.top, self.left, self.part) != (0, 0, 8)


WINDOWS = {
    "crop1": View(0, 0, 7),  # the corners
    "crop2": View(0, 2, 7),
    "crop3": View(2, 0, 7),
    "crop4": View(2, 2, 7),
    "crop5": View(1, 1, 7),  # the middle
    "shift1": View(0, -1),  # what is shown moves right, left, down and up
    "shift2": View(0, 1),
    "shift3": View(-1, 0),
    "shift4": View(1, 0),
}
VIEWS = {"original": View(), "flip": View(mirrored=True), **WINDOWS}
VIEWS |= {f"{name}_flip": replace(window, mirrored=True) for name, window in WINDOWS.items()}
