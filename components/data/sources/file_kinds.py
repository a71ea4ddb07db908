"""Which files are images: by what they begin with, or by a name that says so. Imports nothing heavy."""

import os
import re
import struct
from collections.abc import Mapping

# a file of such a name is meant to be an image: where it is none, that is told
IMAGES = "apng avif avifs bmp dib gif heic heif hif j2k jfif jp2 jpe jpeg jpg jxl pbm pgm png pnm ppm tga tif tiff webp"
# what a camera's sensor saw; many are TIFF files, whose first picture is a thumbnail
RAW = "3fr arw cr2 cr3 dcr dng erf iiq nef nrw orf pef raf rw2 sr2 srw"
IMAGE_SUFFIXES, RAW_SUFFIXES = (frozenset(f".{name}" for name in names.split()) for names in (IMAGES, RAW))
BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes of the second header, by version
ISO_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
SIGNATURE = 32  # bytes that tell


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an image by its first bytes, or is meant to be one by its name."""
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122, for 100,000 files
    if suffix in IMAGE_SUFFIXES:
        return True
    if suffix in RAW_SUFFIXES:
        return False
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return has_signature(file.read(SIGNATURE))
    except OSError:
        return False


def has_signature(head: bytes) -> bool:
    """Whether a file that begins so is an image of a common format."""
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")):
        return True
    if head.startswith((b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"\0\0\0\x0cJXL ")):
        return True
    if head[4:8] == b"ftyp":
        return head[8:12] in ISO_BRANDS
    if head.startswith(b"BM"):
        return len(head) >= 18 and struct.unpack_from("<I", head, 14)[0] in BMP_HEADERS
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    return re.match(rb"P[1-6]\s+(#|\d+\s+\d+\s)", head) is not None


def suffix_of(name: str) -> str:
    """The kind of a file, as its name tells it."""
    return shown(os.path.splitext(name)[1].lower()) or "no suffix"  # noqa: PTH122


def others_told(others: Mapping[str, int]) -> str:
    """Files that are no images, in words: "541 other files left alone: .txt 371, .dat 170"."""
    count = sum(others.values())
    kinds = ", ".join(f"{kind} {number:,}" for kind, number in others.items())
    return f"{count:,} other file{'s' * (count != 1)} left alone: {kinds}"


def shown(path: str) -> str:
    """A path that can be printed and stored: bytes that are no UTF-8 are written as \\xNN."""
    return path if path.isascii() else os.fsencode(path).decode(errors="backslashreplace")
