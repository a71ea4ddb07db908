import dataclasses
import inspect
import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, JpegImagePlugin
from sklearn.datasets import load_sample_image

from components.data import decode as module
from components.data.config import Conversions
from components.data.decode import RejectedError, decode, decode_noting

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
        decode(raw, 8, 3, True, transparent="reject", cmyk="reject")


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


def converted(raw: bytes, **settings: object) -> tuple[np.ndarray, tuple[str, ...]]:
    size = Image.open(io.BytesIO(raw)).width
    return decode_noting(raw, size, 3, False, **settings)


def test_defaults_are_those_of_the_configuration() -> None:
    arguments = inspect.signature(decode_noting).parameters
    for field in dataclasses.fields(Conversions):
        assert arguments[field.name].default == field.default


def test_the_file_needs_none_of_this_project(tmp_path: Path) -> None:
    (tmp_path / "decode.py").write_bytes(Path(module.__file__).read_bytes())
    with_alpha(99).save(tmp_path / "image.png")
    code = (
        "import sys; from pathlib import Path; from decode import decode; "
        "print(decode(Path('image.png'), 8, 3).tolist(), 'components' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{decode(tmp_path / 'image.png', 8, 3).tolist()} False\n"


@pytest.mark.parametrize(
    ("page", "colour", "name"),
    [("white", (255, 255, 255), "white"), ("black", (0, 0, 0), "black"), ([9, 99, 200], (9, 99, 200), "(9, 99, 200)")],
)
def test_transparent_images_lie_on_a_page(page: object, colour: tuple[int, int, int], name: str) -> None:
    alpha = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
    pixels, said = converted(encode(Image.fromarray(np.dstack([RGB, alpha]))), transparent=page)
    share = alpha[..., None] / 255
    np.testing.assert_allclose(pixels, RGB * share + np.array(colour) * (1 - share), atol=1)
    assert said == (f"transparent on {name}",)


@pytest.mark.parametrize(
    "raw",
    [
        encode(Image.fromarray(FEW).quantize(64), transparency=0),
        encode(Image.fromarray(RGB), transparency=tuple(RGB[0, 0].tolist())),
        encode(Image.fromarray(GREY), transparency=int(GREY[0, 0])),
        encode(Image.fromarray(np.dstack([GREY, np.where(GREY[0, 0] == GREY, 0, 255).astype(np.uint8)]))),
    ],
    ids=["palette", "rgb", "grey", "grey with alpha"],
)
def test_a_transparent_colour_shows_the_page(raw: bytes) -> None:
    clear = np.asarray(Image.open(io.BytesIO(raw)).convert("RGBA"))[..., 3] == 0
    pixels, said = converted(raw)
    assert clear.any()
    assert (pixels[clear] == 255).all()
    assert (pixels[~clear] == converted(raw, transparent="black")[0][~clear]).all()
    assert said == ("transparent on white",)


def test_sixteen_bits_are_scaled_by_their_type_or_a_range() -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    for raw in (encode(Image.fromarray(values)), encode(Image.fromarray(values), "TIFF")):
        pixels, said = converted(raw, deep="scale")
        np.testing.assert_array_equal(pixels[..., 0], np.rint(values / 257))
        assert said == ("16 bits to 8",)
        pixels, _ = converted(raw, deep=[1040, 1040 * 11])
        np.testing.assert_array_equal(pixels[..., 0], np.rint(255 * ((values / 1040 - 1) / 10).clip(0, 1)))
    assert np.abs(converted(sixteen_bit_rgb_png(), deep="scale")[0].astype(int) - 0).max() == 0  # of small values


def test_depths_that_have_no_range_of_their_own() -> None:
    values = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    values[0, 0] = np.nan
    raw = encode(Image.fromarray(values), "TIFF")
    with pytest.raises(RejectedError, match=r"32-bit values have no range.*\[low, high\]"):
        converted(raw, deep="scale")
    pixels, _ = converted(raw, deep=[-1.0, 1.0])
    assert pixels[0, 0, 0] == 0
    np.testing.assert_allclose(pixels[1:, :, 0], (values[1:] + 1) / 2 * 255, atol=0.51)
    with pytest.raises(RejectedError, match=r"only data\.convert\.deep: scale"):
        converted(sixteen_bit_rgb_png(), deep=[0, 100])
    with pytest.raises(RejectedError, match="signed 8-bit"):
        converted(encode(Image.fromarray(GREY), "TIFF", tiffinfo={339: 2}))


def test_inks_and_lab_become_srgb() -> None:
    smooth = Image.fromarray(RGB).resize((64, 64), Image.Resampling.BICUBIC)
    pixels, said = converted(encode(smooth.convert("CMYK"), "TIFF"))
    np.testing.assert_array_equal(pixels, np.asarray(smooth.convert("CMYK").convert("RGB")))
    assert said == ("CMYK to sRGB",)
    lab = ImageCms.applyTransform(
        smooth, ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    )
    pixels, said = converted(encode(lab, "TIFF"))
    assert np.abs(pixels.astype(int) - np.asarray(smooth)).mean() < 1.5
    assert said == ("LAB to sRGB",)


def profile_of(gamma: float, red: tuple[float, float, float]) -> bytes:
    """An RGB profile with sRGB's green, blue and white, another red and another curve."""

    def tag(kind: bytes, content: bytes) -> bytes:
        return kind + bytes(4) + content + bytes(-len(content) % 4)

    def numbers(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = tag(b"curv", struct.pack(">IH", 1, round(gamma * 256)))
    tags = {
        b"desc": tag(b"desc", struct.pack(">I", 5) + b"test\0" + bytes(78)),
        b"cprt": tag(b"text", b"none"),
        b"wtpt": tag(b"XYZ ", numbers(0.9642, 1, 0.8249)),
        b"rXYZ": tag(b"XYZ ", numbers(*red)),
        b"gXYZ": tag(b"XYZ ", numbers(0.3851, 0.7169, 0.0971)),
        b"bXYZ": tag(b"XYZ ", numbers(0.1431, 0.0606, 0.7141)),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    table, content = struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(content), len(body))
        content += body
    size = 128 + len(table) + len(content)
    head = struct.pack(">I4sI4s4s4s6H", size, b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ", 2020, 1, 1, 0, 0, 0)
    head += b"acsp" + bytes(28) + numbers(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + table + content


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WIDE = profile_of(1.8, (0.6097, 0.3111, 0.0195))


def test_colours_of_another_profile_are_shown_as_a_viewer_shows_them() -> None:
    raw = encode(Image.fromarray(RGB), icc_profile=WIDE)
    shown = ImageCms.profileToProfile(
        Image.fromarray(RGB), ImageCms.ImageCmsProfile(io.BytesIO(WIDE)), ImageCms.createProfile("sRGB")
    )
    pixels, said = converted(raw)
    np.testing.assert_array_equal(pixels, np.asarray(shown))
    assert np.abs(pixels.astype(int) - RGB).max() > 20
    assert said == ("colour profile to sRGB",)
    np.testing.assert_array_equal(converted(raw, profile="ignore")[0], RGB)
    see_through = with_alpha(255)
    see_through.putpixel((0, 0), (0, 0, 0, 0))
    pixels, said = converted(encode(see_through, icc_profile=WIDE))
    assert said == ("colour profile to sRGB", "transparent on white")
    np.testing.assert_array_equal(pixels[1:], np.asarray(shown)[1:])
    assert (pixels[0, 0] == 255).all()


@pytest.mark.parametrize(
    "profile", [SRGB, b"", b"broken" * 50, WIDE[:200], SRGB[:16] + b"GRAY" + SRGB[20:]], ids=range(5)
)
def test_a_profile_that_says_nothing_new_changes_nothing(profile: bytes) -> None:
    for image in (Image.fromarray(RGB), Image.fromarray(GREY)):
        pixels, said = converted(encode(image, icc_profile=profile))
        np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))
        assert said == ()


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_may_stand_for_an_animation(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    first = Image.fromarray(FEW)
    raw = encode(first, format, save_all=True, append_images=[Image.fromarray(255 - FEW)], **options)
    pixels, said = converted(raw, animated="first")
    assert np.abs(pixels.astype(int) - FEW).max() <= (40 if format == "GIF" else 0)
    assert said == ("first of several frames",)


def test_avif_and_ppm() -> None:
    smooth = np.asarray(Image.fromarray(RGB).resize((64, 64), Image.Resampling.BICUBIC))
    assert np.abs(converted(encode(Image.fromarray(smooth), "AVIF"))[0].astype(int) - smooth).mean() < 3
    np.testing.assert_array_equal(converted(encode(Image.fromarray(RGB), "PPM"))[0], RGB)
    assert converted(encode(Image.fromarray(GREY.astype(np.int32) * 257), "PPM"), deep="scale")[1] == ("16 bits to 8",)


def test_heic_is_read_where_its_package_is_there() -> None:
    heif = pytest.importorskip("pillow_heif")
    smooth = np.dstack([*(4 * np.mgrid[:64, :64]), np.full((64, 64), 90)]).astype(np.uint8)
    buffer = io.BytesIO()
    heif.from_pillow(Image.fromarray(smooth)).save(buffer, quality=95)
    assert np.abs(decode(buffer.getvalue(), 64, 3).astype(int) - smooth).mean() < 2


def test_heic_without_its_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(RejectedError, match="install pillow-heif"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), 8, 3)


@pytest.mark.parametrize(
    ("tag", "kind", "count", "value"),
    [(0x0102, 8, 1, struct.pack("<hh", -5, 0)), (0x011A, 7, 3, b"abc\0")],
    ids=["a signed value", "a resolution that is none"],
)
def test_an_image_is_turned_whatever_else_its_exif_holds(tag: int, kind: int, count: int, value: bytes) -> None:
    entries = [(0x0112, 3, 1, struct.pack("<HH", 6, 0)), (tag, kind, count, value)]
    body = (
        b"II*\0"
        + struct.pack("<IH", 8, len(entries))
        + b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    )
    smooth = Image.fromarray(RGB).resize((64, 64), Image.Resampling.BICUBIC)
    raw, payload = encode(smooth, "JPEG", quality=100), b"Exif\0\0" + body + bytes(4)
    turned = raw[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + raw[2:]
    np.testing.assert_array_equal(decode(turned, 64, 3), np.rot90(decode(raw, 64, 3), k=-1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(640, 427), (427, 640), (1001, 250)])
def test_a_jpeg_decoded_at_a_fraction_of_its_size_looks_the_same(
    size: tuple[int, int], fit: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    photograph = Image.fromarray(load_sample_image("china.jpg")).resize(size, Image.Resampling.LANCZOS)
    photograph.getexif()[0x0112] = orientation
    raw = encode(photograph, "JPEG", quality=90, exif=photograph.getexif())
    for target in (16, 32, 64, 100):
        reduced = decode(raw, target, 3, True, fit).astype(int)
        with monkeypatch.context() as patch:
            patch.setattr(module, "REDUCED", 1e9)
            whole = decode(raw, target, 3, True, fit).astype(int)
        assert np.abs(reduced - whole).mean() < 1


def test_large_jpegs_are_decoded_at_a_fraction_of_their_size() -> None:
    asked = []

    class Spy(JpegImagePlugin.JpegImageFile):
        def draft(self, mode: str | None, size: tuple[int, int] | None) -> object:
            asked.append(size)
            return super().draft(mode, size)

    raw = encode(Image.new("RGB", (4000, 3000)), "JPEG")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(Image.OPEN, "JPEG", (Spy, JpegImagePlugin._accept))
        patch.setattr(module, "simplejpeg", None)
        for target in (32, 180, 300, 700, 800):
            decode(raw, target, 3, True)
    assert asked == [(500, 375), (500, 375), (1000, 750), (2000, 1500)]


PHOTOGRAPH = Image.fromarray(load_sample_image("flower.jpg"))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("form", ["RGB", "L", "progressive", "untransformed", "CMYK", "turned", "wide", "MPO"])
def test_both_jpeg_decoders_give_the_same_pixels(form: str, subsampling: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg")
    image = PHOTOGRAPH.resize((333, 211)).convert(form if form in ("L", "CMYK") else "RGB")
    options: dict[str, Any] = {"subsampling": 0 if form == "untransformed" else subsampling}
    if form == "turned":
        image.getexif()[0x0112] = 6
        options |= {"exif": image.getexif()}
    elif form == "wide":
        options |= {"icc_profile": WIDE}
    elif form == "MPO":
        options |= {"save_all": True, "append_images": [image.rotate(90)]}
    options |= {"progressive": form == "progressive", "keep_rgb": form == "untransformed"}
    raw = encode(image, "MPO" if form == "MPO" else "JPEG", **options)
    here = [decode(raw, target, 3, True, "pad") for target in (16, 32, 64, 200)]
    monkeypatch.setattr(module, "simplejpeg", None)
    for target, pixels in zip((16, 32, 64, 200), here, strict=True):
        np.testing.assert_array_equal(decode(raw, target, 3, True, "pad"), pixels)


@pytest.mark.parametrize("target", [8, 200])
def test_a_jpeg_that_is_damaged_inside_is_rejected(target: int) -> None:
    pytest.importorskip("simplejpeg")
    raw = encode(PHOTOGRAPH, "JPEG", quality=90)
    half = len(raw) // 2
    for damaged in (
        raw[:half] + bytes(4096) + raw[half + 4096 :],
        raw[:half] + b"\xff\xd9",
        raw[:half] + raw[half + 5000 :],
        raw[:-2000],
    ):
        with pytest.raises(RejectedError, match="damaged or truncated"):
            decode(damaged, target, 3, True)
    expected = decode(raw, target, 3, True)
    for odd in (raw + b"added by a camera" * 99, raw[:-2] + bytes(7) + raw[-2:]):
        np.testing.assert_array_equal(decode(odd, target, 3, True), expected)


def test_what_is_not_square_is_cropped_padded_or_stretched() -> None:
    wide = np.zeros((16, 64, 3), dtype=np.uint8)
    wide[:, :24], wide[:, 40:] = (255, 0, 0), (0, 0, 255)
    raw = encode(Image.fromarray(wide))
    cropped, padded, stretched = (decode(raw, 16, 3, True, fit) for fit in ("crop", "pad", "stretch"))
    np.testing.assert_array_equal(cropped, wide[:, 24:40])
    expected = np.asarray(Image.fromarray(wide).resize((16, 16), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(stretched, expected)
    assert (padded[:6] == 255).all()
    assert (padded[10:] == 255).all()
    expected = np.asarray(Image.fromarray(wide).resize((16, 4), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(padded[6:10], expected)
    assert (decode(raw, 16, 1, True, "pad", transparent="black")[:6] == 0).all()
    tall = decode(encode(Image.fromarray(wide.transpose(1, 0, 2))), 16, 3, True, "pad")
    np.testing.assert_array_equal(tall, padded.transpose(1, 0, 2))


def test_a_thin_line_still_has_a_pixel() -> None:
    assert decode(encode(Image.new("RGB", (500, 1))), 8, 3, True, "pad").shape == (8, 8, 3)


@given(
    format=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM"]),
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
