from __future__ import annotations

import io

import numpy as np
import pytest
from face_files import png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_experiments.data.images import read_picture
from fer_experiments.errors import UserError

COLOUR = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("form", "mode"),
    [("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1"), ("JPEG", "CMYK"), ("GIF", "P"), ("TIFF", "LA"), ("WEBP", "RGB"),
     ("BMP", "L"), ("PPM", "RGB"), ("ICO", "RGBA")],
)  # fmt: skip
def test_every_format_and_mode_becomes_gray_of_one_size(form: str, mode: str) -> None:
    image = read_picture(saved(Image.fromarray(COLOUR).convert(mode), form), "face")
    assert (image.shape, image.dtype) == ((48, 48), np.uint8)


def test_a_face_of_the_right_size_is_left_as_it_is() -> None:
    gray = COLOUR[..., 0]
    np.testing.assert_array_equal(read_picture(png(gray), "face", (30, 20)), gray)
    assert read_picture(png(gray), "face", (10, 40)).shape == (10, 40)


def test_a_picture_on_its_side_is_put_upright() -> None:
    image = Image.fromarray(COLOUR[..., 0])
    exif = Image.Exif()
    exif[274] = 6  # orientation: turned to the left
    turned = read_picture(saved(image.rotate(90, expand=True), "PNG", exif=exif), "face", (30, 20))
    np.testing.assert_array_equal(turned, COLOUR[..., 0])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"no picture at all", "no format that is known"),
        (png(COLOUR)[:300], "truncated"),
        (saved(Image.fromarray(COLOUR[..., 0].astype(np.float32)), "TIFF"), "unknown range"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(content: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=f"^some/face.png: cannot be read as a picture .*{reason}") as caught:
        read_picture(content, "some/face.png")
    assert "\n" not in str(caught.value)


@settings(max_examples=150)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "DDS"]), st.data())
def test_a_damaged_picture_is_read_or_refused(form: str, data: st.DataObject) -> None:
    content = bytearray(saved(Image.fromarray(COLOUR), form))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content), 200) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert read_picture(bytes(content), "face").shape == (48, 48)
    except UserError as error:
        assert str(error).startswith("face: ")
