from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from face_files import png, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_experiments.data.images import read_picture
from fer_experiments.data.readers import read_faces
from fer_experiments.errors import UserError

COLOUR = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("form", "mode"),
    [("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1"), ("JPEG", "CMYK"), ("GIF", "P"), ("TIFF", "LA"), ("WEBP", "RGB"),
     ("BMP", "L"), ("PPM", "RGB")],
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


@pytest.mark.parametrize("orientation", [6, 99, "6", 0])
def test_tags_of_a_wrong_type_are_no_fault_and_the_orientation_among_them_is_kept(orientation: object) -> None:
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) if isinstance(orientation, int) else b""
    entry = entry or struct.pack(">HHI4s", 0x0112, 2, 2, b"6\0\0\0")
    wrong = struct.pack(">HHI4s", 0x0100, 7, 4, b"abcd")
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 2) + entry + wrong + bytes(4)
    gray = Image.fromarray(COLOUR[..., 0])
    read = read_picture(saved(gray, "PNG", exif=exif), "face", (20, 30) if orientation == 6 else (30, 20))
    np.testing.assert_array_equal(
        read, np.asarray(gray.transpose(Image.Transpose.ROTATE_270) if orientation == 6 else gray)
    )


def test_tags_that_are_no_tags_are_passed_over() -> None:
    gray = COLOUR[..., 0]
    read = read_picture(saved(Image.fromarray(gray), "PNG", exif=b"Exif\0\0nonsense"), "face", (30, 20))
    np.testing.assert_array_equal(read, gray)


@pytest.mark.parametrize(
    "wide",
    [
        png(COLOUR[..., 0].astype(np.uint16) * 257),
        png(COLOUR[..., 0].astype(np.uint16) * 16),  # of a camera of 12 bits: all but black where 16 are believed
        saved(Image.fromarray(COLOUR[..., 0].astype(np.uint16)), "TIFF"),
        saved(Image.fromarray(COLOUR[..., 0].astype(np.uint16)), "PPM"),
        saved(Image.fromarray(COLOUR[..., 0].astype(np.uint16)), "JPEG2000"),
        saved(Image.fromarray(COLOUR[..., 0].astype(np.int32)), "TIFF"),
        b"P6 1 1 4095\n" + bytes(6),
        b"P3 1 1 65535\n1 2 3\n",
        # a PNG of 16 bits a colour, which Pillow does not write
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in (
                (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)),
                (b"IDAT", zlib.compress(bytes(7))),
                (b"IEND", b""),
            )
        ),
    ],
)
def test_more_than_eight_bits_have_no_known_range_and_are_refused(wide: bytes, tmp_path: Path) -> None:
    reason = "more than 8 bits a channel, of unknown range: convert it to 8 bits"
    with pytest.raises(UserError, match=reason):
        read_picture(wide, "face")
    with pytest.raises(UserError, match=f"happy/1.png: .*{reason}"):
        read_faces(write_folder(tmp_path, {"happy/1.png": wide, "sad/1.png": png(COLOUR)}))


def transparent(mode: str, alpha: np.ndarray) -> bytes:
    layers = Image.fromarray(COLOUR).convert(mode.rstrip("A")).split()
    return saved(Image.merge(mode, [*layers, Image.fromarray(alpha)]), "PNG")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_hidden_under_transparency_is_no_part_of_the_picture(mode: str, tmp_path: Path) -> None:
    alpha = np.zeros((30, 20), np.uint8)
    alpha[10:20], alpha[20:] = 255, 128
    content = transparent(mode, alpha)
    read = read_picture(content, "face", (30, 20))
    gray = np.asarray(Image.fromarray(COLOUR).convert("L"))
    assert (read[:10] == 128).all()
    np.testing.assert_array_equal(read[10:20], gray[10:20])
    np.testing.assert_allclose(read[20:], (gray[20:].astype(int) + 128) / 2, atol=1)
    found = read_faces(write_folder(tmp_path, {"happy/1.png": content, "sad/1.png": content}))
    np.testing.assert_array_equal(found.images[0], read)
    assert found.converted == {"transparency to gray": 2} | ({"colour to gray": 2} if mode == "RGBA" else {})


def test_transparency_of_a_palette_and_of_one_level_is_seen_too() -> None:
    palette = Image.fromarray(COLOUR).quantize(8)
    assert (read_picture(saved(palette, "PNG", transparency=bytes(3) + b"\xff"), "face", (30, 20)) == 128).any()
    level = Image.fromarray(np.where(COLOUR[..., 0] < 128, 7, 200).astype(np.uint8))
    assert set(np.unique(read_picture(saved(level, "PNG", transparency=7), "face", (30, 20)))) == {128, 200}


def test_an_opaque_picture_is_that_without_its_alpha() -> None:
    opaque = transparent("RGBA", np.full((30, 20), 255, np.uint8))
    np.testing.assert_array_equal(read_picture(opaque, "face"), read_picture(png(COLOUR), "face"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (transparent("RGBA", np.zeros((30, 20), np.uint8)), "transparent throughout, a picture without content"),
        (saved(Image.merge("LAB", [Image.fromarray(COLOUR[..., 0])] * 3), "TIFF"), "LAB"),
        (saved(Image.new("1", (9000, 9000)), "PNG"), "its 9000x9000 pixels are more than 64 million"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "no format that is known"),
        (b"\0\0\0 ftypavif" + bytes(40), ""),
        (b"", "the file is empty"),
        (b"no picture at all", "no format that is known"),
        (png(COLOUR)[:300], "truncated"),
        (saved(Image.fromarray(COLOUR[..., 0].astype(np.float32)), "TIFF"), "unknown range"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a drawing in SVG"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(content: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=f"^some/face.png: cannot be read as a picture .*{reason}") as caught:
        read_picture(content, "some/face.png")
    assert "\n" not in str(caught.value)


def test_a_reason_of_several_lines_is_said_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*given: object, **options: object) -> Image.Image:
        raise ValueError("a plugin says\n  what it likes")

    monkeypatch.setattr(Image, "open", opened)
    with pytest.raises(UserError, match=r"^face: cannot be read as a picture \(a plugin says what it likes\);"):
        read_picture(png(COLOUR), "face")


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


@pytest.mark.parametrize("content", [
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, 68) + bytes(20) + b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
])  # fmt: skip
def test_no_picture_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    for program in ("gs", "gswin64c", "djpeg", "dwebp"):
        (tmp_path / program).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(UserError, match="no format that is known"):
        read_picture(content, "face.png")
    with pytest.raises(UserError, match=r"happy/1\.png: cannot be read as a picture"):
        read_faces(write_folder(tmp_path / "faces", {"happy/1.png": content, "sad/1.png": png(COLOUR)}))
    assert not (tmp_path / "started").exists()


def test_formats_are_a_short_list_by_name_and_a_caller_may_take_fewer() -> None:
    gif = saved(Image.fromarray(COLOUR), "GIF")
    assert read_picture(gif, "face").shape == (48, 48)
    with pytest.raises(UserError, match="no format that is known"):
        read_picture(gif, "face", formats=("PNG", "JPEG", "WEBP"))
    for form in ("ICO", "PSD", "SGI"):  # of other pictures inside, of many layers
        if form in Image.SAVE:
            with pytest.raises(UserError, match="no format that is known"):
                read_picture(saved(Image.fromarray(COLOUR), form), "face")


def test_where_the_decoder_holds_more_fewer_pixels_are_taken() -> None:
    with pytest.raises(UserError, match="its 5000x5000 pixels are more than 16 million"):
        read_picture(saved(Image.new("L", (5000, 5000)), "JPEG2000"), "face")
