"""prepare: the configured sources become one array a split, a manifest and a palette."""

from contextlib import closing
from functools import partial
from pathlib import Path

from components.data.decoded_cache import DecodedCache
from components.data.prepare import LeftOut, prepare
from components.data.prepared import Prepared
from components.data.sources.file_kinds import others_told
from pipelines.config.params import Params
from pipelines.paths import PREPARED
from pipelines.stages.progress import tqdm
from pipelines.stages.registry import Stage
from pipelines.stages.stage_run import log_data, stage_run
from pipelines.tracking.journal import tracking_folder

GIB = 2**30
STAGE = Stage(does="images to arrays, splits, OOD sets", per="run", after=("sources",), in_report="numbers")


def run(params: Params) -> None:
    """Write data/prepared, and outputs/prepare."""
    with stage_run(params, "prepare", settings={"data": params.data}) as stage:
        with closing(DecodedCache(cache_folder(), params.data.cache_gib * GIB)) as cache:
            left_out = prepare(
                params.data,
                params.seed,
                PREPARED,
                params.training.batch_size,
                progress=partial(tqdm, delay=1, unit=" images"),
                cache=cache if params.data.cache_gib else None,
            )
        prepared = Prepared.open(PREPARED)
        log_data(stage, prepared, dict.fromkeys(prepared.splits, "prepared"))
        counts = {split: len(prepared.images(split)) for split in prepared.splits}
        with stage.folder() as out:
            out.metrics = {
                **{f"images/{split}": count for split, count in counts.items()},
                "quarantined": left_out.unusable,
                "duplicates": left_out.duplicates,
                "label_conflicts": left_out.label_conflicts,
                "palette_colours": len(prepared.palette),
            }
            out.constants = {"seed": params.seed, "data_fingerprint": prepared.fingerprint()}
    sizes = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    print(f"prepared {sizes} images; {len(prepared.palette)} colours; {told(left_out)}")
    if cache.asked:
        print(f"{cache.taken:,} of {cache.asked:,} decoded images taken from the cache")
    if cache.trouble:
        print(f"without the cache of decoded images: {cache.trouble}")
    for line in notes(prepared):
        print(line)


def cache_folder() -> Path:
    """Of the project itself, also where a flow runs this stage in a copy of it."""
    return tracking_folder().with_name(".cache") / "decoded"


def notes(prepared: Prepared) -> list[str]:
    """What was done with the files of each source: conversions, files that are no images, classes left out."""
    lines = []
    for source in prepared.meta["sources"].values():
        said = [f"converted {count:,} images: {how}" for how, count in source["converted"].items()]
        if source["others"]:
            said.append(others_told(source["others"]))
        if small := source["small_classes"]:
            said.append(f"left out, too few images: {', '.join(f'{name} ({n})' for name, n in small.items())}")
        if said:
            lines.append(f"{source['name']}: {'; '.join(said)}")
    return lines


def told(left_out: LeftOut) -> str:
    """How many images were left out, why, and where they are listed."""
    if not any(left_out):
        return "no image left out"
    kinds = ("unusable", "duplicate", "of contradicting labels")
    counts = ", ".join(f"{count} {kind}" for count, kind in zip(left_out, kinds, strict=True) if count)
    images = "1 image" if sum(left_out) == 1 else f"{sum(left_out):,} images"
    return f"{images} left out ({counts}), listed in {PREPARED}/quarantine.csv"
