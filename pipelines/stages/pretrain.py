"""pretrain: train one variant of the hybrid model, from its resume file where an earlier try left one."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from components.data.prepared import Prepared
from components.files import file_digest
from components.model.build import Architecture, build
from components.model.pretrained import pretrained_encoder
from components.objectives.base import TrainingSet
from components.objectives.checkpoint import save_term
from components.objectives.objective import build_objective
from components.training.loop import pretrain
from components.training.samples import completions, samples
from components.training.start import start_from
from components.training.summary import describe
from pipelines.config.params import Params
from pipelines.paths import PREPARED, SCRATCH
from pipelines.stages.registry import Stage
from pipelines.stages.stage_run import log_data, stage_run
from pipelines.stages.training import TRAINING_CODE, announced, resume_key, training_data, write_trained

STAGE = Stage(does="training without labels", per="variant", after=("validate",), in_report="numbers")


def run(params: Params, variant_name: str) -> None:
    """Write outputs/V/pretrain."""
    variant = params.variant(variant_name)
    settings = {
        "model": params.model,
        "training": params.training,
        "augmentation": params.augmentation,
        "variant": variant,
    }
    with stage_run(params, "pretrain", variant_name, settings) as stage:
        prepared = Prepared.open(PREPARED)
        architecture = Architecture.of(params.model, variant, prepared.image_size, prepared.palette)
        encoder, origin = None, dict[str, str]()
        if variant.encoder is not None:
            encoder, origin = pretrained_encoder(variant.encoder, prepared.image_size)
        model = build(architecture, prepared.palette, params.seed, encoder)
        start = params.training.start_of(variant_name)
        if start is not None and variant.encoder is None:
            origin = start_from(model, architecture, start)
        data = training_data(prepared)
        key = resume_key_of(params, variant_name, prepared)
        scratch = SCRATCH / f"pretrain-{variant_name}-{key}"
        log_data(stage, prepared, {prepared.pretrain_split: "pretraining", "val": "validation"})
        # an objective of its own, which is not kept: it may hold a bank of all images, or a second encoder
        objective = build_objective(variant, model, TrainingSet(data.images, data.labels), params.seed)
        facts = describe(model, objective, architecture, params.training) | origin
        del objective
        on_metrics = announced(stage, facts, params.training, scratch / "resume.pt")

        with stage.watched(), stage.folder() as out:
            trained = pretrain(
                model,
                data,
                variant,
                params.training,
                params.augmentation,
                params.seed,
                scratch / "resume.pt",
                key,
                on_metrics,
            )
            constants = {**facts, "seed": params.seed}
            write_trained(out, model, architecture, trained, params.training, prepared, constants)
            term = trained.objective.generative
            if term is not None and not variant.generative.exact:
                save_term(out.path / "term.safetensors", term)
            if architecture.generative:
                _write_images(out.path / "samples.npz", samples(model, params.seed))
                _write_images(out.path / "completions.npz", completions(model, data.val[0], params.seed))
        shutil.rmtree(scratch, ignore_errors=True)


def resume_key_of(params: Params, variant: str, prepared: Prepared) -> str:
    """The key of a variant's resume file: another one for other settings, data or code of its training."""
    sections = [params.model, params.training, params.augmentation, params.variant(variant)]
    start = params.weights_of(variant)
    extra = file_digest(start).encode() if start else b""
    return resume_key(params.seed, sections, prepared, TRAINING_CODE, extra)


def _write_images(path: Path, rows: dict[str, Any]) -> None:
    np.savez_compressed(path, **rows)
