import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from components.data.decode import RejectedError, decode

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
RGB = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
FEW = (RGB // 64 * 64).astype(np.uint8)  # at most 64 colours, so that a palette holds them all


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def with_alpha(alpha: int) -> Image.Image:
    return Image.fromarray(np.dstack([RGB, np.full((8, 8), alpha, dtype=np.uint8)]))


def sixteen_bit_rgb_png() -> bytes:
    """Pillow writes none: a hand-made one, which it reads as 8-bit RGB without a word."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + RGB[y].astype(">u2").tobytes() for y in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def truncated(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF"])
def test_grey_is_taken_as_it_is(format: str) -> None:
    np.testing.assert_array_equal(decode(encode(Image.fromarray(GREY), format), 8, 1, False)[..., 0], GREY)


@pytest.mark.parametrize(
    "raw",
    [
        encode(Image.fromarray(RGB)),
        encode(Image.fromarray(RGB), "BMP"),
        encode(Image.fromarray(RGB), "TIFF"),
        encode(Image.fromarray(RGB), "WEBP", lossless=True),
        encode(with_alpha(255)),
        encode(with_alpha(255), "TIFF"),
        RGB,
    ],
    ids=["png", "bmp", "tiff", "webp", "opaque-png", "opaque-tiff", "pixels"],
)
def test_rgb_is_taken_as_it_is(raw: bytes | np.ndarray) -> None:
    decoded = decode(raw, 8, 3, False)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, RGB)


@pytest.mark.parametrize("format", ["PNG", "GIF", "TIFF"])
def test_a_palette_is_looked_up(format: str) -> None:
    image = Image.fromarray(FEW).convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    np.testing.assert_array_equal(decode(encode(image, format), 8, 3, False), np.asarray(image.convert("RGB")))


def test_grey_and_rgb_are_converted_into_each_other() -> None:
    np.testing.assert_array_equal(decode(GREY, 8, 3, False), np.repeat(GREY[..., None], 3, axis=2))
    luma = RGB @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
    np.testing.assert_allclose(decode(RGB, 8, 1, False)[..., 0], luma, atol=0.51)
    np.testing.assert_array_equal(decode(np.repeat(GREY[..., None], 3, axis=2), 8, 1, False)[..., 0], GREY)


def test_one_bit_becomes_black_and_white() -> None:
    image = Image.fromarray(GREY > 127)
    np.testing.assert_array_equal(decode(encode(image), 8, 1, False)[..., 0], np.where(GREY > 127, 255, 0))


def test_exif_orientation_is_applied() -> None:
    image = Image.fromarray(RGB)
    image.getexif()[0x0112] = 6  # the camera was turned by 90 degrees
    np.testing.assert_array_equal(
        decode(encode(image, exif=image.getexif()), 8, 3, False), np.rot90(RGB, k=-1), err_msg="rotated clockwise"
    )


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty"),
        (b"this is a text, whatever its name says", "not an image"),
        (truncated(encode(Image.fromarray(RGB))), "truncated"),
        (truncated(encode(Image.fromarray(RGB), "JPEG")), "truncated"),
        (encode(Image.fromarray(GREY.astype(np.uint16) * 257)), "16 bits"),
        (encode(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"), "16 bits"),
        (encode(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "32 bits"),
        (sixteen_bit_rgb_png(), "16 bits"),
        (encode(with_alpha(254)), "transparent"),
        (encode(Image.fromarray(FEW).quantize(64), transparency=0), "transparent"),
        (encode(Image.fromarray(RGB), transparency=tuple(RGB[0, 0].tolist())), "transparent"),
        (encode(Image.fromarray(RGB).convert("CMYK"), "JPEG"), "CMYK"),
        (encode(Image.fromarray(RGB).convert("CMYK"), "TIFF"), "CMYK"),
        (encode(Image.fromarray(RGB).convert("LAB"), "TIFF"), "LAB"),
        *[
            (encode(Image.fromarray(RGB), f, save_all=True, append_images=[Image.fromarray(255 - RGB)]), "2 frames")
            for f in ("GIF", "PNG", "WEBP", "TIFF")
        ],
    ],
)
def test_what_would_be_mangled_is_rejected_with_its_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(RejectedError, match=reason):
        decode(raw, 8, 3, True)


def test_a_header_that_claims_a_giant_image_is_rejected_unread() -> None:
    raw = bytearray(encode(Image.fromarray(RGB)))
    raw[16:24] = (60000).to_bytes(4, "big") * 2
    raw[29:33] = zlib.crc32(bytes(raw[12:29])).to_bytes(4, "big")
    with pytest.raises(RejectedError, match="more pixels"):
        decode(bytes(raw), 8, 3, True)


def test_another_size_is_rejected_or_cropped_and_resized(noise: Callable[..., np.ndarray]) -> None:
    wide = np.concatenate([noise(1, 16), noise(2, 16)], axis=1)  # 32 wide, 16 high
    with pytest.raises(RejectedError, match=r"32×16, expected 8×8.*data\.resize"):
        decode(encode(Image.fromarray(wide)), 8, 3, False)
    expected = Image.fromarray(wide).resize((8, 8), Image.Resampling.BICUBIC, box=(8, 0, 24, 16))
    np.testing.assert_array_equal(decode(encode(Image.fromarray(wide)), 8, 3, True), np.asarray(expected))


@given(
    format=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]),
    position=st.floats(0, 1, exclude_max=True),
    value=st.binary(max_size=6),
    end=st.floats(0, 1),
)
def test_damaged_files_are_decoded_or_rejected_and_never_anything_else(
    format: str, position: float, value: bytes, end: float
) -> None:
    raw = bytearray(encode(Image.fromarray(RGB), format))
    start = int(position * len(raw))
    raw[start : start + len(value)] = value
    try:
        decoded = decode(bytes(raw[: int(end * len(raw)) + 1]), 8, 3, True)
    except RejectedError:
        return
    assert decoded.shape == (8, 8, 3)
    assert decoded.dtype == np.uint8
