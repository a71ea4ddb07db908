"""certificate: a PAC-Bayes bound on how often the encoder confuses new images, for the variants that ask for one."""

from components.data.prepared import Prepared
from components.errors import ConfigError
from components.evaluation.certificate.certify import certify, require_disjoint, some_images, view_features
from components.model.build import load_weights
from components.plotting.certificate import certificate_curves
from components.training.device import choose_device
from pipelines.config.params import PARAMS, Params
from pipelines.paths import PREPARED, stage_folder
from pipelines.stages.attempts import forget
from pipelines.stages.registry import Stage
from pipelines.stages.results import record_of
from pipelines.stages.stage_run import log_data, stage_run
from pipelines.tracking import deliver

STAGE = Stage(does="a bound on how often new images are confused", per="request", after=("report",))
SPLITS = ("train", "val", "test")


def run(params: Params, variant: str) -> None:
    """Write outputs/V/certificate, and show the run in MLflow under the variant's."""
    if variant not in params.certificate:
        raise ConfigError(
            f"{PARAMS}: certificate: no entry for {variant!r}. Add one, `certificate: {{{variant}: {{}}}}`."
        )
    config = params.certificate[variant]
    with stage_run(
        params, "certificate", variant, {"certificate": config, "augmentation": params.augmentation}
    ) as stage:
        stage.journal.nest_under(record_of("report", variant)["run_key"])
        prepared = Prepared.open(PREPARED)
        log_data(
            stage, prepared, {"train": "prior"} | {s: "bound" if s == config.split else "test" for s in SPLITS[1:]}
        )
        known = [prepared.images(split) for split in {"train", prepared.pretrain_split}]
        require_disjoint(prepared.images(config.split), config.split, known)
        model, _ = load_weights(stage_folder("pretrain", variant) / "model.safetensors")
        device = choose_device(params.training)
        views = {}
        for seed, split in enumerate(SPLITS):
            images = prepared.images(split)
            if split != config.split:
                images = some_images(images, params.seed)
            views[split] = view_features(model, images, config.views, params.augmentation, device, params.seed + seed)
        result = certify(views, config, params.seed)
        with stage.folder() as out:
            out.metrics = result.metrics
            out.constants = {**result.constants, "data_fingerprint": prepared.fingerprint()}
            certificate_curves(result.metrics, result.constants, out.path / "certificate.png")
    print(result)
    forget("certificate", variant)
    deliver()
