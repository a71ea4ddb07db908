"""From the bytes of an image file to uint8 pixels, or to the reason why not. Nothing is silently mangled.

| input | what happens |
|---|---|
| 1- or 8-bit grey, 8-bit RGB | taken, and converted into each other (ITU-R 601 luma) to suit `channels` |
| palette | looked up, so RGB |
| alpha channel or transparent colour | dropped where all is opaque, otherwise rejected: the look depends on the page |
| EXIF orientation | applied, so that the pixels stand as every viewer shows them |
| CMYK, Lab, YCbCr, HSV | rejected: the RGB colours would depend on a profile |
| more than 8 bits a channel | rejected: Pillow would cut the lower bits off |
| several frames (animation, pages) | rejected |
| damaged, truncated, empty, not an image | rejected |
| another size | rejected, or with `resize` cropped to the central square and resized (bicubic, antialiased) |
"""

import io
import warnings

import numpy as np
from PIL import ExifTags, Image, ImageOps

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
TIFF_BITS_PER_SAMPLE = 258
PNG_BIT_DEPTH = 24  # the byte of the file that holds it (IHDR is always the first chunk)


class RejectedError(ValueError):
    """This image goes to quarantine; the message is the reason."""


def decode(raw: bytes | np.ndarray, image_size: int, channels: int, resize: bool) -> np.ndarray:
    """Decode an image file, or take pixels, into uint8 (image_size, image_size, channels).

    `raw` holds the bytes of a PNG, JPEG, BMP, GIF, TIFF or WebP file, or uint8 pixels (H, W) or (H, W, 3).
    Raises RejectedError with the reason.
    """
    image = Image.fromarray(raw) if isinstance(raw, np.ndarray) else _open(raw)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (image_size, image_size):
        if not resize:
            width, height = image.size
            raise RejectedError(
                f"size is {width}×{height}, expected {image_size}×{image_size} (data.resize: true would resize it)"
            )
        image = ImageOps.fit(image, (image_size, image_size), method=Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8).reshape(image_size, image_size, channels)


def _open(raw: bytes) -> Image.Image:
    """Read the file into mode L, RGB or one that converts to them without loss."""
    if not raw:
        raise RejectedError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(io.BytesIO(raw), formats=FORMATS)
            _check_header(image, raw)
            image.load()
            if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                image = ImageOps.exif_transpose(image)
            return _opaque(image)
    except RejectedError:
        raise
    except Image.UnidentifiedImageError as error:
        raise RejectedError(f"not an image that can be read ({', '.join(FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RejectedError("more pixels than can be right (a decompression bomb?)") from error
    except Exception as error:  # Pillow's decoders raise a dozen types on damaged files, and more with each version
        raise RejectedError(f"damaged or truncated: {error}") from error


def _check_header(image: Image.Image, raw: bytes) -> None:
    # MPO is what telephones write: a JPEG photograph that carries a preview or a second view behind it
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise RejectedError(f"animated or of several pages ({frames} frames)")
    bits = 8
    if image.format == "PNG":
        bits = raw[PNG_BIT_DEPTH]
    elif image.format == "TIFF":
        bits = int(np.max(image.tag_v2.get(TIFF_BITS_PER_SAMPLE, 8)))  # type: ignore[attr-defined]
    if bits > 8:
        raise RejectedError(f"{bits} bits a channel, expected 8")
    if image.mode not in ("1", "L", "P", "PA", "LA", "RGB", "RGBA"):
        raise RejectedError(f"colour mode {image.mode}, expected grey or RGB")


def _opaque(image: Image.Image) -> Image.Image:
    """Drop an alpha channel or transparent colour that hides nothing."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            raise RejectedError("transparent: put it on a background first")
    return image.convert("RGB") if image.mode not in ("1", "L") else image
