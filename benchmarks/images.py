"""The images that a benchmark runs on."""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.data.config import DataConfig, Source
from components.data.prepare import prepare
from components.data.prepared import Prepared
from components.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--prepared", type=Path, help="a run's data/prepared; default: scikit-learn's digits, resized")
    given.add_argument("--parquet", nargs="+", help="files in the layout of Hugging Face's image sets")
    parser.add_argument("--test-parquet", nargs="+", help="a test set; default: a fifth of the images")
    parser.add_argument(
        "--image-size", type=int, default=32, help="side in pixels; others are resized (not --prepared)"
    )
    parser.add_argument("--limit", type=int, help="take at most so many images (not of --prepared)")


@contextmanager
def open_images(options: argparse.Namespace, rgb: bool = False) -> Iterator[Prepared]:
    """The images that the command line names; Parquet files and the digits are prepared in RGB, in a temporary folder.

    Raises UserError where they are grey and `rgb` is asked for.
    """
    if options.prepared:
        prepared = Prepared.open(options.prepared)
        if rgb and prepared.channels == 1:
            raise UserError(f"{options.prepared}: its images are grey, but the others' transforms want RGB.")
        yield prepared
        return
    source = Source(builtin="digits", limit=options.limit)
    if options.parquet:
        source = Source(parquet=tuple(options.parquet), limit=options.limit)
    test = Source(parquet=tuple(options.test_parquet)) if options.test_parquet else None
    with tempfile.TemporaryDirectory(prefix="benchmark-") as place:
        folder = Path(place) / "prepared"
        prepare(DataConfig(options.image_size, 3, source, test=test, resize=True), 0, folder, minimum_train=1)
        yield Prepared.open(folder)
