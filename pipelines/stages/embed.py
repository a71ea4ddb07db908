"""embed: features and likelihood of every split, once."""

from functools import partial

from tqdm import tqdm

from components.data.prepared import Prepared
from components.evaluation.embed import embed
from components.training.device import choose_device
from pipelines.config import Params
from pipelines.paths import PREPARED
from pipelines.stages.tracked import log_data, tracked
from pipelines.stages.weights import load_model


def run(params: Params, variant: str) -> None:
    """Write outputs/V/embed."""
    with tracked(params, "embed", variant) as stage:
        prepared = Prepared.open(PREPARED)
        log_data(stage, prepared, dict.fromkeys(prepared.splits, "embedding"))
        model = load_model(params, variant, prepared)
        with stage.folder() as out:
            device = choose_device(params.training)
            out.metrics = embed(model, prepared, out.path, device, progress=partial(tqdm, delay=1))
            out.constants = {"data_fingerprint": prepared.fingerprint(), "feature_size": params.model_of(variant).width}
