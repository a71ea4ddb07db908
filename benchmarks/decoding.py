"""Reading JPEG files in as many processes as there are cores, against torchvision and Hugging Face datasets: images/s.

    python -m benchmarks.decoding [--sizes 4000x3000 500x375] [--image-size 224] [--memory 1000 10000] [--json FILE]

All crop to the central square and resize it, from the same files, in the same number of processes, whose start counts:
torchvision's ImageFolder in a DataLoader, and datasets' `map` (where it is installed: requirements/benchmarks.txt).
Files are mosaics of scikit-learn's two photographs. --memory: what `prepare` and its processes hold together at
most, for so many files.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image, ImageOps

from benchmarks.measuring import Report, Row, medians, parser_for, run, take_turns
from components.cores import usable_cores
from components.data.config import DataConfig, Source
from components.data.decoders import Decoders
from components.data.prepare import prepare

QUALITY = 85
PIXELS_A_ROUND = 250_000_000  # which sets the number of files of a size
SIDE = 32  # of the images by which memory is measured
MB = 1e6


def write_files(folder: Path, width: int, height: int, count: int) -> list[Path]:
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    (folder / "class").mkdir(parents=True)
    paths = [folder / "class" / f"{number:05}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        rng = np.random.default_rng(number)
        mosaic = Image.new("RGB", (width, height))
        for top in range(0, height, 427):
            for left in range(0, width, 640):
                tile = photographs[rng.integers(2)]
                turned = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.integers(2) else tile
                mosaic.paste(turned, (left, top))
        mosaic.save(path, quality=QUALITY)
    return paths


def squared(row: dict[str, Any], size: int) -> dict[str, Any]:
    return {"pixels": np.asarray(ImageOps.fit(row["image"].convert("RGB"), (size, size), Image.Resampling.BICUBIC))}


def ours(paths: list[Path], size: int, processes: int) -> int:
    with closing(Decoders({"image_size": size, "channels": 3, "resize": True}, processes)) as decoders:
        return sum(not isinstance(answer, str) for answer in decoders.decode(paths, len(paths)))


def torchvision(paths: list[Path], size: int, processes: int) -> int:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    transform = v2.Compose([v2.Resize(size, v2.InterpolationMode.BICUBIC), v2.CenterCrop(size), v2.PILToTensor()])
    images = ImageFolder(str(paths[0].parents[1]), transform)
    return sum(len(batch) for batch, _ in DataLoader(images, 16, num_workers=processes))


def datasets_map(paths: list[Path], size: int, processes: int) -> int:
    from datasets import load_dataset
    from datasets.utils.logging import disable_progress_bar

    from benchmarks import decoding  # functions of the module that runs go over to other processes with all it imports

    disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as cache:
        found = load_dataset("imagefolder", data_dir=str(paths[0].parents[1]), split="train", cache_dir=cache)
        return len(found.map(decoding.squared, fn_kwargs={"size": size}, num_proc=processes, remove_columns=["image"]))


def rate(read: Callable[[list[Path], int, int], int], paths: list[Path], size: int, processes: int) -> float:
    began = time.perf_counter()
    assert read(paths, size, processes) == len(paths)
    return len(paths) / (time.perf_counter() - began)


def peak_megabytes(work: Callable[[], object]) -> float:
    """The largest sum of what this process and its children hold for themselves, looked at every 50 ms."""
    peak, done = 0.0, threading.Event()
    us = psutil.Process()

    def look() -> None:
        nonlocal peak
        while not done.wait(0.05):
            held = 0
            for process in (us, *us.children(recursive=True)):
                try:
                    held += process.memory_full_info().uss
                except psutil.Error:  # ended this moment
                    continue
            peak = max(peak, held / MB)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return peak


def memory(counts: list[int], processes: int, report: Report) -> None:
    rows: list[Row] = []
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as place:
            folder = Path(place) / "images"
            for number in range(count):
                path = folder / f"{number % 2}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                # of few colours, as photographs have fewer the more there are: the palette is fitted to all of them
                noise = 85 * np.random.default_rng(number).integers(0, 4, (SIDE, SIDE, 3), dtype=np.uint8)
                Image.fromarray(noise).save(path, compress_level=0)
            config = DataConfig(SIDE, 3, Source(folder=str(folder)), processes=processes)
            peak = peak_megabytes(partial(prepare, config, 0, Path(place) / "prepared", 1))
        rows.append({"images": count, "peak MB": peak})
    report.add(f"memory, {SIDE}×{SIDE}", rows)


def main() -> None:
    parser = parser_for(__doc__, rounds=3)
    parser.add_argument("--sizes", nargs="*", default=["4000x3000", "500x375"], help="WIDTHxHEIGHT of the files")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--processes", type=int, default=usable_cores())
    parser.add_argument("--memory", type=int, nargs="*", default=[], help="numbers of files")
    options: argparse.Namespace = parser.parse_args()
    report = Report(options, ("pillow", "simplejpeg", "torchvision", "datasets"))
    contenders = {"ours": ours, "torchvision ImageFolder": torchvision}
    if find_spec("datasets"):
        contenders["datasets map"] = datasets_map
    for shape in options.sizes:
        width, height = map(int, shape.split("x"))
        with tempfile.TemporaryDirectory(prefix="benchmark-") as place:
            count = max(32, min(1000, PIXELS_A_ROUND // (width * height)))
            paths = write_files(Path(place), width, height, count)
            each = sum(path.stat().st_size for path in paths) / count / MB
            turns = {
                name: partial(rate, read, paths, options.image_size, options.processes)
                for name, read in contenders.items()
            }
            found = take_turns(turns, options.rounds)
        best = medians(found)
        rows: list[Row] = [{"": name, "images/s": value, "times": best["ours"] / value} for name, value in best.items()]
        report.add(f"{shape}, {count} files of {each:.2f} MB, {options.processes} processes", rows, found)
    if options.memory:
        memory(options.memory, options.processes, report)


if __name__ == "__main__":
    run(main)
