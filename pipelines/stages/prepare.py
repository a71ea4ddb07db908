"""prepare: the configured sources become one array a split, a manifest and a palette."""

from functools import partial

from components.data.prepare import prepare
from components.data.prepared import Prepared
from pipelines.config import Params
from pipelines.paths import PREPARED
from pipelines.stages.progress import tqdm
from pipelines.stages.tracked import log_data, tracked


def run(params: Params) -> None:
    """Write data/prepared, and outputs/prepare."""
    with tracked(params, "prepare", settings={"data": params.data}) as stage:
        meta = prepare(params.data, params.seed, PREPARED, params.training.batch_size, progress=partial(tqdm, delay=1))
        prepared = Prepared.open(PREPARED)
        log_data(stage, prepared, dict.fromkeys(prepared.splits, "prepared"))
        counts = {split: len(prepared.images(split)) for split in prepared.splits}
        with stage.folder() as out:
            out.metrics = {
                **{f"images/{split}": count for split, count in counts.items()},
                "quarantined": meta["quarantined"],
                "palette_colours": len(prepared.palette),
            }
            out.constants = {"seed": params.seed, "data_fingerprint": prepared.fingerprint()}
    sizes = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    print(f"prepared {sizes} images; {len(prepared.palette)} colours; {meta['quarantined']} files quarantined")
