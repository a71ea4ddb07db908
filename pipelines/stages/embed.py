"""embed: features and likelihood of every split and of corrupted test images, and features after every block, once."""

from dataclasses import asdict
from functools import partial

from components.data.prepared import Prepared
from components.evaluation.features.embed import embed, embed_corrupted
from components.evaluation.features.layers import embed_layers
from components.evaluation.features.store import CORRUPTED
from components.training.device import choose_device
from pipelines.config.params import Params
from pipelines.paths import PREPARED
from pipelines.stages.progress import tqdm
from pipelines.stages.registry import Stage
from pipelines.stages.stage_run import log_data, stage_run
from pipelines.stages.weights import load_model

STAGE = Stage(does="features and likelihood of every image", per="encoder", after=("pretrain",), in_report="numbers")


def run(params: Params, variant: str) -> None:
    """Write outputs/V/embed."""
    with stage_run(params, "embed", variant, {"embed": params.embed}) as stage:
        prepared = Prepared.open(PREPARED)
        log_data(stage, prepared, dict.fromkeys(prepared.splits, "embedding"))
        model = load_model(params, variant, prepared)
        with stage.folder() as out:
            device = choose_device(params.training)
            out.metrics = embed(model, prepared, out.path, device, progress=partial(tqdm, delay=1))
            embed_corrupted(model, prepared.images("test"), params.embed, params.seed, out.path / CORRUPTED, device)
            embed_layers(model, prepared, params.embed, out.path, device)
            out.constants = {"data_fingerprint": prepared.fingerprint(), "feature_size": model.feature_size}
            if model.reduced is not None:
                out.constants["scored_size"] = model.reduced.image_size
            out.constants |= {**asdict(params.embed), "seed": params.seed}
