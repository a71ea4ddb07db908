import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.data.sources.file_kinds import has_signature, is_image, others_told, suffix_of

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "format", ["PNG", "JPEG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM"], ids=str.lower
)
def test_every_format_is_known_by_its_first_bytes(format: str) -> None:
    buffer = io.BytesIO()
    PICTURE.save(buffer, format)
    assert has_signature(buffer.getvalue()[:32]) == (format != "DIB")  # which has none


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"BMW is a make of cars, and no bitmap",
        b"P5 is a class of ships",
        b"RIFF\x24\x08\x00\x00WAVEfmt ",
        b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41",
        b"%PDF-1.7",
        b"MM",
        b'{"caption": "a cat"}',
    ],
)
def test_what_is_no_image(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert not is_image(tmp_path / "file")


def test_content_decides_unless_the_name_says_image_or_raw(tmp_path: Path) -> None:
    for name in ("picture", "picture.dat", "sensor.NEF"):
        PICTURE.save(tmp_path / name, "TIFF")
    (tmp_path / "broken.JPG").write_text("no image, but meant to be one")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "gone.txt").symlink_to("nowhere")
    found = {path.name for path in tmp_path.iterdir() if is_image(path)}
    assert found == {"picture", "picture.dat", "broken.JPG", "gone.png"}


def test_other_files_in_words() -> None:
    assert others_told({".txt": 371, ".dat": 170}) == "541 other files left alone: .txt 371, .dat 170"
    assert others_told({"no suffix": 1}) == "1 other file left alone: no suffix 1"
    assert (suffix_of("A.TXT"), suffix_of("README"), suffix_of("a.tar.gz")) == (".txt", "no suffix", ".gz")
