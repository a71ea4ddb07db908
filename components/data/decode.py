"""From an image file to uint8 pixels, or to the reason why not. Nothing is silently mangled.

| input | what happens |
|---|---|
| 1- or 8-bit grey, 8-bit RGB | taken, and converted into each other (ITU-R 601 luma) to suit `channels` |
| palette | looked up, so RGB |
| EXIF orientation | applied, so that the pixels stand as every viewer shows them |
| alpha channel or transparent colour | dropped where all is opaque, otherwise by `transparent` |
| more than 8 bits a channel | by `deep` |
| CMYK, Lab | by `cmyk` |
| an embedded colour profile | by `profile`; one that is sRGB in effect changes nothing |
| several frames (animation, pages) | by `animated`; the preview that a telephone adds to a photograph is none |
| damaged, truncated, empty, not an image | rejected |
| another size | rejected, or with `resize` made square by `fit` (bicubic, antialiased) |

This file is shipped with each model. It needs NumPy and Pillow; pillow-heif for HEIC; and simplejpeg, without which
JPEGs give the same pixels, but one that is damaged in the middle is taken for whole.
"""

import functools
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "AVIF", "PPM")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
PNG_BIT_DEPTH = 24  # the byte of the file that holds it (IHDR is always the first chunk)
TIFF_BITS_PER_SAMPLE, TIFF_SAMPLE_FORMAT, SIGNED = 258, 339, 2
TURNED = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, True, False),
    3: (Image.Transpose.ROTATE_180, True, True),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, False, True),
    5: (Image.Transpose.TRANSPOSE, False, False),
    6: (Image.Transpose.ROTATE_270, True, False),
    7: (Image.Transpose.TRANSVERSE, True, True),
    8: (Image.Transpose.ROTATE_90, False, True),
}  # by EXIF's number, from 5 with sides swapped: what puts it right; whether left, and top, come from right or bottom
BACKGROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0)}
REDUCED = 2.0  # a JPEG is decoded at a half, a quarter or an eighth that is still so many times what is wanted
# other complaints are of a few bytes too many, or of the order of things: viewers take such files, too
DAMAGED_JPEG = re.compile(r"premature end|bad Huffman|instead of RST|\d{3,} extraneous bytes before marker 0xd9", re.I)
SAME_COLOURS = 1.0  # mean difference, in levels, up to which a profile is taken for sRGB


class RejectedError(ValueError):
    """This image goes to quarantine; the message is the reason."""


class Decoded(NamedTuple):
    """An image that can be used."""

    pixels: np.ndarray  # uint8 (image_size, image_size, channels)
    converted: tuple[str, ...]  # in words, besides turning, cropping and resizing


class _Opened(NamedTuple):
    image: Image.Image
    counts: tuple[float, float, float, float]  # left, top, right, bottom: a reduced JPEG's edge pixels count in part
    size: tuple[int, int]  # width and height before it was reduced


def decode(
    file: bytes | Path | np.ndarray,
    image_size: int,
    channels: int,
    resize: bool = False,
    fit: str = "crop",
    **convert: Any,
) -> np.ndarray:
    """Decode an image file, or take pixels, into uint8 (image_size, image_size, channels).

    `file` is the path or content of a PNG, JPEG, BMP, GIF, TIFF, WebP, AVIF, HEIC or PPM file, or uint8 pixels (H, W)
    or (H, W, 3). The other arguments are those of params.yaml: `data` and, in `convert`, `data.convert`.
    Raises RejectedError with the reason.
    """
    return decode_noting(file, image_size, channels, resize, fit, **convert).pixels


def decode_noting(
    file: bytes | Path | np.ndarray,
    image_size: int,
    channels: int,
    resize: bool = False,
    fit: str = "crop",
    transparent: str | Sequence[int] = "white",
    deep: str | Sequence[float] = "reject",
    cmyk: str = "convert",
    profile: str = "srgb",
    animated: str = "reject",
) -> Decoded:
    """As `decode`, and say which conversions were made."""
    converted: list[str] = []
    page = BACKGROUNDS.get(transparent) if isinstance(transparent, str) else tuple(transparent)
    if isinstance(file, np.ndarray):
        image = Image.fromarray(file)
        counts: tuple[float, float, float, float] = (0, 0, *image.size)
        size = image.size
    else:
        with _reasons_told():
            reader = _Reader(image_size if resize else None, fit, deep, animated, converted)
            image, counts, size = reader.read(file)
            image = _opaque(_in_srgb(image, cmyk, profile, converted), page, converted)
    image = _in_mode(image, "L" if channels == 1 else "RGB")
    if size != (image_size, image_size):
        if not resize:
            width, height = size
            raise RejectedError(
                f"size is {width}×{height}, expected {image_size}×{image_size} (data.resize: true would resize it)"
            )
        image = _squared(image, counts, image_size, fit, page or BACKGROUNDS["white"])
    pixels = np.asarray(image, dtype=np.uint8).reshape(image_size, image_size, channels)
    return Decoded(pixels, tuple(converted))


@contextmanager
def _reasons_told() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except RejectedError:
        raise
    except Image.UnidentifiedImageError as error:
        raise RejectedError(f"not an image that can be read ({', '.join(FORMATS)}, HEIC)") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RejectedError("more pixels than can be right (a decompression bomb?)") from error
    except MemoryError as error:
        raise RejectedError("too large for the memory of this machine") from error
    except Exception as error:  # Pillow's decoders raise a dozen types on damaged files, and more with each version
        if isinstance(error, OSError) and error.errno is not None:
            raise RejectedError(f"can't be read: {error.strerror}") from error
        raise RejectedError(f"damaged or truncated: {error}") from error


class _Reader(NamedTuple):
    target: int | None  # the side that the image will be resized to, if it may
    fit: str
    deep: str | Sequence[float]
    animated: str
    converted: list[str]

    def read(self, file: bytes | Path) -> _Opened:
        """The image as it stands on a screen, 8 bits a channel."""
        with io.BytesIO(file) if isinstance(file, bytes) else file.open("rb") as content:
            head = content.read(32)
            if not head:
                raise RejectedError("empty file")
            content.seek(0)
            image = _identified(content, head)
            self._check_frames(image)
            bits = _bits(image, head)
            if bits > 8 and self.deep == "reject":
                raise RejectedError(
                    f"{bits} bits a channel, expected 8 (data.convert.deep: scale takes the type's range, "
                    "[low, high] another)"
                )
            size, reduction = image.size, self._reduction(image)
            if image.format in ("JPEG", "MPO"):
                orientation, image = _orientation(image), _jpeg(image, content, reduction)
            else:
                image.load()
                orientation = _orientation(image)
        if reduction == 1:
            size = image.size  # a TIFF file has been turned by Pillow
        left = top = 0.0
        width, height = size[0] / reduction, size[1] / reduction
        if orientation in TURNED:
            turn, from_right, from_bottom = TURNED[orientation]
            image = image.transpose(turn)
            if orientation >= 5:
                width, height, size = height, width, size[::-1]
            left, top = from_right * (image.width - width), from_bottom * (image.height - height)
        image = self._eight_bits(image, bits) if bits > 8 else image
        return _Opened(image, (left, top, left + width, top + height), size)

    def _check_frames(self, image: Image.Image) -> None:
        # MPO and HEIF are what telephones write: a photograph that carries a preview or a second view behind it
        frames = 1 if image.format in ("MPO", "HEIF") else getattr(image, "n_frames", 1)
        if frames > 1:
            if self.animated == "reject":
                raise RejectedError(
                    f"animated or of several pages ({frames} frames; data.convert.animated: first takes the first)"
                )
            image.seek(0)
            self.converted.append("first of several frames")

    def _reduction(self, image: Image.Image) -> int:
        """2, 4 or 8 where a JPEG decoded at that part of its sides is still well above the target, otherwise 1."""
        if self.target is None or image.format not in ("JPEG", "MPO"):
            return 1
        side = max(image.size) if self.fit == "pad" else min(image.size)
        return next((part for part in (8, 4, 2) if side / part >= REDUCED * self.target), 1)

    def _eight_bits(self, image: Image.Image, bits: int) -> Image.Image:
        self.converted.append(f"{bits} bits to 8")
        if image.mode in ("RGB", "RGBA", "LA"):  # Pillow has dropped the lower bits already
            if self.deep == "scale":
                return image
            raise RejectedError(f"colour of {bits} bits a channel: only data.convert.deep: scale can take it")
        values = np.asarray(image).astype(np.float64)
        if isinstance(self.deep, str):
            if bits > 16 or _signed(image):
                raise RejectedError(
                    f"{bits}-bit {'signed ' * _signed(image)}values have no range to be scaled by: give "
                    "data.convert.deep: [low, high]"
                )
            low, high = 0.0, 2.0**bits - 1
        else:
            low, high = self.deep
        share = np.nan_to_num((values - low) / (high - low), nan=0.0).clip(0, 1)
        return Image.fromarray(np.rint(255 * share).astype(np.uint8))


def _identified(content: IO[bytes], head: bytes) -> Image.Image:
    formats: tuple[str, ...] = FORMATS
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS:
        try:
            from pillow_heif import register_heif_opener  # in a call, because few images need it
        except ImportError as error:
            raise RejectedError("HEIC: install pillow-heif to have it read") from error
        register_heif_opener()
        formats = (*FORMATS, "HEIF")
    return Image.open(content, formats=formats)


def _jpeg(image: Image.Image, content: IO[bytes], reduction: int) -> Image.Image:
    """The pixels of an opened JPEG, or of the first in the file, with what Pillow knows about it.

    Both decoders are libjpeg-turbo and give the same pixels. Pillow's does not tell that data were damaged or missing
    in the middle, and paints something.
    """
    if simplejpeg is None or image.mode not in ("L", "RGB"):
        if reduction > 1:
            image.draft(None, (image.width // reduction, image.height // reduction))
        image.load()
        return image
    content.seek(0)
    data, colours = content.read(), "GRAY" if image.mode == "L" else "RGB"
    sides = {"min_height": -(-image.height // reduction), "min_width": -(-image.width // reduction)}
    try:
        pixels = simplejpeg.decode_jpeg(data, colours, **sides)
    except ValueError as error:
        if DAMAGED_JPEG.search(str(error)):
            raise
        pixels = simplejpeg.decode_jpeg(data, colours, **sides, strict=False)
    decoded = Image.fromarray(pixels[..., 0] if image.mode == "L" else pixels)
    decoded.info = image.info
    return decoded


def _bits(image: Image.Image, head: bytes) -> int:
    """Bits a channel, which Pillow's modes do not tell."""
    bits = 8
    if image.format == "PNG":
        bits = head[PNG_BIT_DEPTH]
    elif image.format == "PPM" and image.mode != "F":
        bits = 16 if image.mode.startswith("I") else 8
    elif image.mode == "F":
        bits = 32
    elif image.format == "TIFF":
        bits = int(np.max(image.tag_v2.get(TIFF_BITS_PER_SAMPLE, 8)))  # type: ignore[attr-defined]
        if bits <= 8 and _signed(image):
            raise RejectedError("signed 8-bit values, expected 0 to 255")
    return bits


def _signed(image: Image.Image) -> bool:
    return image.format == "TIFF" and SIGNED in np.atleast_1d(image.tag_v2.get(TIFF_SAMPLE_FORMAT, 1))  # type: ignore[attr-defined]


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # metadata that is broken in one of many ways; the pixels are well
        return 1


def _in_srgb(image: Image.Image, cmyk: str, profile: str, converted: list[str]) -> Image.Image:
    """Grey or RGB, with or without alpha, in the colours of sRGB."""
    embedded = image.info.get("icc_profile") if profile == "srgb" else None
    if image.mode in ("CMYK", "LAB"):
        if cmyk == "reject":
            raise RejectedError(f"colour mode {image.mode}, expected grey or RGB (data.convert.cmyk: convert takes it)")
        converted.append(f"{image.mode} to sRGB")
        transform = _to_srgb(embedded, image.mode)
        return image.convert("RGB") if transform is None else _transformed(image, transform)
    if image.mode not in ("1", "L", "P", "PA", "LA", "RGB", "RGBA", "RGBX", "YCbCr"):
        raise RejectedError(f"colour mode {image.mode}, expected grey or RGB")
    if not embedded:
        return image
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    transform = _to_srgb(embedded, mode)
    if transform is None:
        return image
    converted.append("colour profile to sRGB")
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    image = _transformed(_in_mode(image, mode), transform)
    if alpha is not None:
        image.putalpha(alpha)
    return image


@functools.lru_cache(maxsize=32)
def _to_srgb(embedded: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None where nothing would change, or viewers ignore it: none, broken, of another mode."""
    srgb = ImageCms.createProfile("sRGB")
    try:
        if mode == "LAB":
            return ImageCms.buildTransform(ImageCms.createProfile("LAB"), srgb, mode, "RGB")
        given = ImageCms.ImageCmsProfile(io.BytesIO(embedded or b""))
        transform = ImageCms.buildTransform(given, srgb, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    if mode == "CMYK":
        return transform
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3)
    colours = Image.fromarray(cube if mode == "RGB" else levels[None])
    changed = np.asarray(_transformed(colours, transform)).astype(int)
    return transform if np.abs(changed - np.asarray(colours.convert("RGB"))).mean() > SAME_COLOURS else None


def _transformed(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    changed = ImageCms.applyTransform(image, transform)
    assert changed is not None  # as it is where the image itself is to be changed
    return changed


def _opaque(image: Image.Image, page: tuple[int, ...] | None, converted: list[str]) -> Image.Image:
    """Drop an alpha channel or transparent colour that hides nothing, and put other images on the page."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            if page is None:
                raise RejectedError("transparent (data.convert.transparent: white puts it on a white page)")
            name = next((name for name, colour in BACKGROUNDS.items() if colour == page), f"{page}")
            converted.append(f"transparent on {name}")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (*page, 255)), image)
    return _in_mode(image, "RGB") if image.mode not in ("1", "L") else image


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # which copies in any case


def _squared(
    image: Image.Image, counts: tuple[float, float, float, float], side: int, fit: str, background: tuple[int, ...]
) -> Image.Image:
    """Resize to (side, side). `counts` is the part of the image that counts."""
    left, top, right, bottom = counts
    width, height = right - left, bottom - top
    if fit == "crop":
        least = min(width, height)
        left, top = left + (width - least) / 2, top + (height - least) / 2
        return image.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + least, top + least))
    if fit == "stretch":
        return image.resize((side, side), Image.Resampling.BICUBIC, counts)
    inner = tuple(max(1, round(length * side / max(width, height))) for length in (width, height))
    padded = Image.new("RGB", (side, side), background).convert(image.mode)
    whole = image.resize((inner[0], inner[1]), Image.Resampling.BICUBIC, counts)
    padded.paste(whole, ((side - inner[0]) // 2, (side - inner[1]) // 2))
    return padded
