"""Drawn faces of the seven emotions, for machines that have no FER2013.

A face is muscles at work (the action units of the Facial Action Coding System, Ekman & Friesen 1978) on a head, in a
pose, under a light, painted straight onto a batch of 48x48 images: a shape is the distance to its edge.

The bytes are the same on every platform: pixels see only + - * / sqrt, minimum and maximum (IEEE 754 rounds them
exactly, exp and sin not), and no sums over an axis, whose order differs between CPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from fer_experiments.data.faces import EMOTIONS, USAGES, Faces
from fer_experiments.errors import UserError

# How hard the task is: sweeps/quick.yaml finds heads from 0.74 to 0.94. Ranges are uniform over the faces.
INTENSITY = (0.2, 1.0)  # of the expression: 0 is a neutral face, 1 the full table below
IDLE = 0.12  # deviation of each muscle without any emotion: resting faces smile or frown a little
NOISE = (2.0, 20.0)  # grey levels, the largest of an image
BLUR = (0.0, 0.9)  # weight of the neighbouring pixels
OCCLUSION = 0.2  # share of faces with a bar or hand across; glasses, fringes and beards have theirs below

SIZE = 48
BATCH = 64  # faces painted at a time: their float32 pixels stay in the processor's cache
SHARES = {"angry": 0.14, "disgust": 0.02, "fear": 0.14, "happy": 0.25, "sad": 0.17, "surprise": 0.11, "neutral": 0.17}

# Full contraction of each muscle, by emotion (EMFACS). The comment is the action unit.
MUSCLES: dict[str, dict[str, float]] = {
    "inner_brow_up": {"sad": 1.0, "fear": 0.9, "surprise": 0.9},  # 1
    "outer_brow_up": {"fear": 0.45, "surprise": 1.0},  # 2
    "brow_down": {"angry": 1.0, "disgust": 0.5, "fear": 0.35, "sad": 0.3},  # 4
    "lid_up": {"fear": 0.9, "surprise": 0.8, "angry": 0.35},  # 5
    "cheek_up": {"happy": 1.0, "disgust": 0.3},  # 6
    "lid_tight": {"angry": 0.6, "disgust": 0.6, "happy": 0.35, "sad": 0.45},  # 7
    "nose_wrinkle": {"disgust": 1.0, "angry": 0.2},  # 9
    "lip_up": {"disgust": 1.0, "happy": 0.25, "angry": 0.15},  # 10
    "corner_up": {"happy": 1.0},  # 12
    "corner_down": {"sad": 1.0, "angry": 0.4, "disgust": 0.6, "fear": 0.4},  # 15
    "lip_stretch": {"fear": 0.9, "happy": 0.4, "angry": 0.2},  # 20
    "lip_press": {"angry": 1.0, "sad": 0.2},  # 24
    "jaw_down": {"surprise": 1.0, "fear": 0.6},  # 26
    "parted": {"angry": 0.6, "happy": 0.5, "sad": 0.3, "disgust": 0.3, "neutral": 0.2},  # 25, on every other face
}
Uniform = Callable[[float, float], np.ndarray]


def draw_faces(size: int, seed: int) -> Faces:
    """Return `size` drawn faces, uint8 [size, 48, 48], the same for the same (size, seed) everywhere.

    Emotions come in the proportions of SHARES, Training, PublicTest and PrivateTest 80/10/10 within each emotion.
    Raises UserError for a size under 1.
    """
    if size < 1:
        raise UserError(f"data.demo_size={size}: there is no face to draw; give a number of 1 or more")
    rng = np.random.default_rng(seed)
    bounds = np.rint(np.cumsum([SHARES[emotion] for emotion in EMOTIONS]) * size).astype(int)
    order = rng.permutation(size)
    code = np.searchsorted(bounds, order, side="right")
    part = np.repeat(USAGES, [8, 1, 1])[order % 10]  # order counts through the emotions, so this stratifies
    images = np.concatenate([_draw(code[start : start + BATCH], rng) for start in range(0, size, BATCH)])
    ids = np.array([f"demo-{row:06d}" for row in range(size)])
    return Faces(images=images, emotion=np.array(EMOTIONS)[code], usage=part, ids=ids)


def _draw(code: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return one batch of faces, uint8 [n, 48, 48]; `code` is the emotion's index in EMOTIONS."""

    def uniform(low: float, high: float) -> np.ndarray:
        return low + (high - low) * rng.random((len(code), 1, 1), np.float32)

    muscles = _muscles(code, uniform)
    canvas = _Canvas(uniform)
    look = _paint_head(canvas, muscles, uniform)
    _paint_creases(canvas, muscles, look)
    _paint_eyes(canvas, muscles, look, uniform)
    _paint_mouth(canvas, muscles, look, uniform)
    _paint_occluders(canvas, look, uniform)
    return _photograph(canvas, rng, uniform)


def _muscles(code: np.ndarray, uniform: Uniform) -> SimpleNamespace:
    """Return the contraction of every muscle, float32 [n, 1, 1] from 0 to about 1.2."""
    table = np.array([[row.get(emotion, 0) for emotion in EMOTIONS] for row in MUSCLES.values()], np.float32)
    intensity, m = uniform(*INTENSITY), SimpleNamespace()
    for name, full in zip(MUSCLES, table[:, code, None, None], strict=True):
        idle = IDLE * (uniform(-1, 1) + uniform(-1, 1) + uniform(-1, 1))  # about normal
        vars(m)[name] = np.maximum(full * intensity * uniform(0.6, 1.25) + idle, 0)
    m.jaw_down += m.parted * (uniform(0, 1) < 0.5)  # laughing, shouting, crying
    m.lip_press *= m.jaw_down < 0.15
    return m


class _Canvas:
    """A batch of images under paint: pixels float32 [n, 48, 48] from 0 to 1, and where they lie on the head.

    x, y: head coordinates of every pixel; eyes at y = -0.2, the mouth at 0.52, the chin at 1, cheeks at x = -0.8, 0.8.
    side: the distance from the head's midline, so that both halves of a face are painted at once.
    """

    def __init__(self, uniform: Uniform) -> None:
        grid = ((np.arange(SIZE) - (SIZE - 1) / 2) / (SIZE / 2)).astype(np.float32)
        self.right, self.down = grid[None, None, :], grid[None, :, None]
        turn = uniform(-0.16, 0.16) + uniform(-0.16, 0.16)  # radians, small: cos and sin by their series
        cos, sin = 1 - turn * turn / 2, turn - turn * turn * turn / 6
        zoom = uniform(0.95, 1.3)
        x, y = self.right - uniform(-0.12, 0.12), self.down - uniform(-0.16, 0.06)
        x, y = (x * cos + y * sin) / zoom * uniform(0.95, 1.1), (y * cos - x * sin) / zoom
        yaw = uniform(-0.22, 0.22)  # moves the middle of the face sideways and leaves its outline where it is
        self.x, self.y = x + yaw * np.maximum(1 - x * x, -0.3), y
        self.side = np.abs(self.x)
        self.pixels = uniform(0.05, 0.95) + uniform(-0.25, 0.25) * self.right + uniform(-0.25, 0.25) * self.down

    def paint(self, mask: np.ndarray, tone: np.ndarray | float) -> None:
        """Lay `tone` over the pixels, `mask` (0 to 1) thick."""
        self.pixels += mask * (tone - self.pixels)


def _inside(distance: np.ndarray, edge: float = 0.07) -> np.ndarray:
    """Return 1 where `distance` is negative, 0 where it is positive, with a step `edge` wide."""
    return np.clip(0.5 - distance / edge, 0, 1)


def _blob(dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Return a smooth spot: 1 at the origin, 0 from distance 1 on."""
    spot = np.maximum(1 - dx * dx - dy * dy, 0)
    return spot * spot


def _paint_head(canvas: _Canvas, m: SimpleNamespace, uniform: Uniform) -> SimpleNamespace:
    """Paint background, hair, neck, ears, face and nose; return the look of the head that the rest depends on."""
    x, y, side = canvas.x, canvas.y, canvas.side
    skin = uniform(0.3, 0.9)
    hair = uniform(0.02, 0.5) * uniform(0.2, 1.0) + (uniform(0, 1) < 0.15) * 0.4
    look = SimpleNamespace(skin=skin, hair=hair, dark=skin * 0.35)
    canvas.paint(uniform(0, 0.5) * _blob((canvas.right - uniform(-1, 1)) / 0.8, canvas.down - uniform(-1, 1)), 0.5)
    width, chin, bulk = uniform(0.74, 0.92), 1 + 0.15 * m.jaw_down, uniform(0.02, 0.25)
    reach = (width + bulk) * np.sqrt(np.maximum(1 - (np.maximum(-y - 0.1, 0) / (1.1 + bulk)) ** 2, 0))
    canvas.paint(_inside(np.maximum(side - reach, y - (uniform(0, 1) < 0.4) * uniform(0.5, 1.5)), 0.12), hair)
    canvas.paint(_inside(np.maximum(side - width * 0.6, 0.6 - y), 0.15), skin * 0.75)  # neck
    canvas.paint(_inside(np.sqrt((side - width) ** 2 * 4 + y * y) - 0.2), skin * 0.8)  # ears
    breadth = width * (1 - uniform(0.05, 0.35) * np.maximum(y, 0) ** 2)  # a jaw from square to pointed
    radius = np.sqrt((side / breadth) ** 2 + (y / np.where(y > 0, chin, 1.15)) ** 2)
    canvas.paint(_inside(radius - 1, 0.1), skin * (1.08 - 0.3 * radius * radius))
    beard = (uniform(0, 1) < 0.15) * uniform(0.2, 0.7)
    canvas.paint(beard * _inside(radius - 1) * _inside(0.35 + 0.4 * (0.6 - side) - y, 0.25), hair)
    nose, tip = uniform(0.12, 0.17), 0.2 - 0.06 * m.nose_wrinkle
    canvas.paint(0.4 * _blob((x - uniform(-0.1, 0.1)) / (nose * 1.9), (y - tip - 0.06) / 0.12), look.dark)
    canvas.paint(0.5 * _blob(x / 0.08, (y - tip + 0.2) / 0.4), np.minimum(skin * 1.25, 1))
    canvas.paint(0.8 * _blob((side - nose * 0.6) / 0.07, (y - tip - 0.04) / 0.06), look.dark * 0.7)
    return look


def _paint_creases(canvas: _Canvas, m: SimpleNamespace, look: SimpleNamespace) -> None:
    """Paint what muscles do to the skin: cheeks, folds beside the mouth, wrinkles of nose and forehead."""
    y, side = canvas.y, canvas.side
    lifted = np.minimum(m.cheek_up + 0.5 * m.corner_up, 1.2)
    canvas.paint(0.55 * lifted * _blob((side - 0.47) / 0.27, (y - 0.16) / 0.22), np.minimum(look.skin * 1.3, 1))
    canvas.paint(0.5 * lifted * _blob((side - 0.4) / 0.3, y / 0.07), look.dark)  # bag under the eye
    fold = np.minimum(0.15 + 0.6 * lifted + 0.6 * m.lip_up, 0.9)
    along = np.clip((y - 0.12) / 0.5, 0, 1)
    canvas.paint(fold * _blob((side - 0.2 - 0.34 * along) / 0.07, (along - 0.5) / 0.55), look.dark)
    frown = np.minimum(0.6 * m.brow_down + 0.25 * m.nose_wrinkle, 0.6)
    canvas.paint(frown * _blob((side - 0.07) / 0.06, (y + 0.36) / 0.18), look.dark)
    wrinkled = np.minimum(0.6 * m.nose_wrinkle, 0.6)
    for line in (-0.2, -0.09, 0.02):
        canvas.paint(wrinkled * _blob(side / 0.17, (y - line - 0.3 * side) / 0.055), look.dark)
    raised = np.minimum(0.3 * m.inner_brow_up + 0.25 * m.outer_brow_up, 0.5)
    for line in (-0.8, -0.66):
        canvas.paint(raised * _blob(side / 0.6, (y - line - 0.1 * side) / 0.05), look.dark)


def _paint_eyes(canvas: _Canvas, m: SimpleNamespace, look: SimpleNamespace, uniform: Uniform) -> None:
    """Paint eyes and brows."""
    x, y, side = canvas.x, canvas.y, canvas.side
    apart, wide = uniform(0.36, 0.42), uniform(0.15, 0.2)
    ex, ey = look.eye_x, look.eye_y = side - apart, y + 0.2
    lid, blink = 1 - (ex / wide) ** 2, 1 - (uniform(0, 1) < 0.04) * 0.85
    upper = np.maximum(uniform(0.07, 0.11) * (1 + 0.9 * m.lid_up - 0.4 * m.lid_tight - 0.1 * m.cheek_up), 0.02) * blink
    lower = np.maximum(0.06 * (1 + 0.3 * m.lid_up - 0.7 * m.lid_tight - 0.8 * m.cheek_up), 0.0)
    canvas.paint(0.3 * _blob(ex / 0.32, (ey + 0.05) / 0.25), look.dark)  # the socket's shadow
    opening = _inside(np.maximum(-ey - upper * lid, ey - lower * lid), 0.05)
    canvas.paint(opening, 0.55 + 0.45 * look.skin)
    gaze = uniform(-0.05, 0.05) * np.sign(x)
    canvas.paint(opening * _inside(np.sqrt((ex - gaze) ** 2 + (ey + 0.02) ** 2) - 0.085, 0.05), uniform(0.02, 0.25))
    lash = np.maximum(np.abs(ey + upper * lid) - 0.02, np.abs(ex) - wide * 1.05)
    canvas.paint(uniform(0.5, 0.9) * _inside(lash, 0.06), look.dark * 0.5)
    along = (side - apart + wide + 0.03 + 0.07 * m.brow_down) / (2 * wide + 0.12)  # 0 at its inner end, 1 at its outer
    rest = uniform(-0.5, -0.42)
    start = rest - 0.2 * m.inner_brow_up + 0.17 * m.brow_down
    end = rest + 0.03 - 0.2 * m.outer_brow_up + 0.03 * m.brow_down + 0.04 * m.inner_brow_up
    arch = uniform(0.0, 0.07) + 0.05 * m.outer_brow_up - 0.04 * m.brow_down
    brow = start + (end - start) * along - arch * 4 * along * (1 - along)
    thick = uniform(0.02, 0.06) * (1 - 0.5 * np.clip(along, 0, 1))
    stroke = np.maximum(np.abs(y - brow) - thick, np.abs(along - 0.5) * 0.4 - 0.2)
    canvas.paint(uniform(0.5, 1) * _inside(stroke), np.minimum(look.hair, look.skin * 0.6))


def _paint_mouth(canvas: _Canvas, m: SimpleNamespace, look: SimpleNamespace, uniform: Uniform) -> None:
    """Paint lips, the open mouth and teeth."""
    x = canvas.x
    stretch = 1 + 0.3 * m.corner_up + 0.3 * m.lip_stretch - 0.3 * m.jaw_down - 0.12 * m.lip_press
    wide = uniform(0.28, 0.36) * np.clip(stretch, 0.6, 1.6)
    y = canvas.y - uniform(0.48, 0.56) - uniform(-0.06, 0.06) * x
    curve = np.minimum((x / wide) ** 2, 1.6)
    arch = np.sqrt(1 - np.minimum(curve, 1))
    middle = (0.17 * m.corner_up - 0.16 * m.corner_down - 0.04 * m.lip_stretch) * (0.45 - curve)  # y grows downwards
    top = middle - (0.1 * m.jaw_down + 0.09 * m.lip_up) * arch * (1 - np.minimum(0.8 * m.corner_up, 0.9))
    bottom = middle + (0.27 * m.jaw_down + 0.03 * m.lip_up) * arch
    lips = uniform(0.04, 0.09) * np.clip(1 - 0.7 * m.lip_press, 0.15, 1) * (0.3 + 0.7 * arch)
    outside = np.abs(x) - wide
    canvas.paint(0.5 * _blob(x / 0.3, (y - bottom - lips - 0.1) / 0.09), look.dark)  # shadow under the lip
    around = np.maximum(np.maximum(top - lips - y, y - bottom - lips * 1.2), outside)
    canvas.paint(uniform(0.3, 0.8) * _inside(around), look.skin * 0.6)
    canvas.paint(0.9 * _inside(np.maximum(np.abs(y - (top + bottom) / 2) - 0.012, outside)), look.dark * 0.5)
    hole = _inside(np.maximum(np.maximum(top - y, y - bottom), outside), 0.05)
    canvas.paint(hole * np.minimum((bottom - top) / 0.04, 1), 0.06)
    teeth = uniform(0.03, 0.09) * (1 + 1.5 * m.corner_up) * (0.4 + m.corner_up + m.lip_up + m.lip_stretch > 0.5)
    canvas.paint(0.95 * hole * _inside(y - top - teeth, 0.05), 0.6 + 0.4 * look.skin)


def _paint_occluders(canvas: _Canvas, look: SimpleNamespace, uniform: Uniform) -> None:
    """Paint glasses, a fringe, and a bar or hand across the picture."""
    fringe = canvas.y - uniform(-0.85, -0.45) + uniform(-0.3, 0.3) * canvas.x
    canvas.paint((uniform(0, 1) < 0.35) * _inside(fringe, 0.15), look.hair)
    rim = np.sqrt(look.eye_x**2 + (look.eye_y * 1.2) ** 2)
    bridge = np.maximum(np.abs(look.eye_y + 0.03) - 0.015, canvas.side - 0.16)
    frame = np.minimum(np.abs(rim - uniform(0.22, 0.27)) - uniform(0.005, 0.03), bridge)
    glasses = (uniform(0, 1) < 0.2) * uniform(0.5, 1)
    canvas.paint(glasses * uniform(0, 0.5) * _inside(rim - 0.24), uniform(0, 1))
    canvas.paint(glasses * _inside(frame), uniform(0, 0.6))
    across = canvas.down - uniform(-1, 1.1) + uniform(-1.5, 1.5) * (canvas.right - uniform(-0.8, 0.8))
    bar = (uniform(0, 1) < OCCLUSION) * _inside(np.abs(across) - uniform(0.08, 0.3))
    canvas.paint(bar, look.skin * uniform(0.5, 1.3))


def _photograph(canvas: _Canvas, rng: np.random.Generator, uniform: Uniform) -> np.ndarray:
    """Return the canvas as uint8 after light from one side, blur, contrast and noise."""
    pixels = canvas.pixels * (1 + uniform(-0.45, 0.45) * canvas.right + uniform(-0.3, 0.3) * canvas.down)
    weight = uniform(*BLUR)
    before, after = np.maximum(np.arange(SIZE) - 1, 0), np.minimum(np.arange(SIZE) + 1, SIZE - 1)
    for axis in (1, 2):
        pixels = (pixels + weight * (pixels.take(before, axis) + pixels.take(after, axis)) / 2) / (1 + weight)
    pixels = 0.5 + uniform(0.6, 1.5) * (pixels - 0.45) + uniform(-0.12, 0.12)
    grain = rng.random(pixels.shape, np.float32) + rng.random(pixels.shape, np.float32) - 1
    return np.clip(np.rint(pixels * 255 + uniform(*NOISE) * grain), 0, 255).astype(np.uint8)
