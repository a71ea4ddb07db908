"""baselines: the same probes on raw pixels and on a randomly initialised encoder."""

import numpy as np

from components.data.prepared import Prepared
from components.evaluation.probes.linear_probe import Labelled
from components.evaluation.probes.run import run_probes
from components.model.build import Architecture, build
from components.model.encode import encode_features, thumbnails
from components.objectives.config import VariantConfig
from components.training.device import choose_device
from pipelines.config.params import Params
from pipelines.paths import PREPARED
from pipelines.stages.registry import Stage
from pipelines.stages.stage_run import log_data, stage_run

STAGE = Stage(does="probes on raw pixels and an untrained encoder", per="run", after=("validate",), in_report="numbers")


def run(params: Params) -> None:
    """Write outputs/baselines."""
    with stage_run(params, "baselines", settings={"model": params.model, "probe": params.probe}) as stage:
        prepared = Prepared.open(PREPARED)
        log_data(stage, prepared, {"train": "probe fitting", "val": "model selection", "test": "test"})
        encoder_only = VariantConfig(w_gen=0, w_con=1)
        architecture = Architecture.of(params.model, encoder_only, prepared.image_size, prepared.palette)
        untrained = build(architecture, prepared.palette, params.seed).eval()
        device = choose_device(params.training)
        pixels, random = [], []
        for split in ("train", "val", "test"):
            images, labels = prepared.images(split), prepared.labels(split)
            small = thumbnails(images)
            pixels.append(Labelled(small.reshape(len(small), -1) / np.float32(255), labels))
            random.append(Labelled(encode_features(untrained.to(device), images, device).numpy(), labels))
        with stage.folder() as out:
            for name, (train, val, test) in (("raw_pixels", pixels), ("random_encoder", random)):
                result = run_probes(train, val, test, params.probe, params.seed)
                out.metrics |= {f"{name}/{metric}": value for metric, value in result.metrics.items()}
                out.constants = result.constants
            out.constants["data_fingerprint"] = prepared.fingerprint()
