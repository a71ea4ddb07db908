"""export: one ONNX file, checked against PyTorch on the whole test split, with its model card."""

import shutil

import numpy as np

from components.data import decode
from components.data.prepared import Prepared
from components.distillation.config import StudentConfig
from components.evaluation.ood.detectors.fused import Fused
from components.evaluation.probes.linear_probe import LinearProbe
from components.export import reference, training_image_ids
from components.export.card import model_card
from components.export.graph import ExportedModel, export_onnx
from components.export.parity import check_parity, time_inference
from components.files import read_json
from components.objectives.config import VariantConfig
from pipelines.config.params import Params
from pipelines.paths import PREPARED, stage_folder
from pipelines.stages.registry import Stage
from pipelines.stages.results import constants_of, metrics_of
from pipelines.stages.stage_run import log_data, stage_run
from pipelines.stages.weights import load_model

STAGE = Stage(does="ONNX, speed, parity", per="encoder", after=("ood",), in_report="numbers")


def run(params: Params, variant_name: str) -> None:
    """Write outputs/V/export."""
    trained = params.encoder(variant_name)
    with stage_run(params, "export", variant_name, {"export": params.export}) as stage:
        prepared = Prepared.open(PREPARED)
        log_data(stage, prepared, {"test": "parity", "val": "reference"})
        model = load_model(params, variant_name, prepared)
        probe = LinearProbe.load(stage_folder("probe", variant_name) / "probe.npz")
        fused = Fused.load(stage_folder("ood", variant_name) / "fused.npz")
        threshold = read_json(stage_folder("ood", variant_name) / "thresholds.json", "fused")
        module = ExportedModel(model, probe, fused, threshold)
        test = prepared.images("test")
        with stage.folder() as out:
            path = out.path / "model.onnx"
            export_onnx(module, prepared.image_size, prepared.channels, path, params.export.opset)
            out.metrics = {
                **check_parity(module, path, test, params.export),
                **time_inference(module, path, test),
                "onnx_megabytes": path.stat().st_size / 1e6,
            }
            out.constants = {
                "tolerance": params.export.tolerance,
                "batch_sizes": list(params.export.batch_sizes),
                "opset": params.export.opset,
                "data_fingerprint": prepared.fingerprint(),
            }
            shutil.copy(decode.__file__, out.path / "decode.py")  # so that whoever has the model can read image files
            np.save(out.path / "example.npy", np.array(test[:2]))
            answers = reference.Reference.of(
                path,
                prepared.images("val"),
                prepared.classes,
                prepared.reading,
                params.ood.false_alarm_rate,
                threshold,
            )
            answers.save(out.path / reference.FILE)
            np.save(out.path / training_image_ids.FILE, training_image_ids.known_images(prepared))
            stages = {name: metrics_of(name, variant_name) for name in ("embed", "probe", "ood")}
            stages["export"] = out.metrics
            trained_with = constants_of("pretrain", variant_name)
            facts = {
                **{name: value for name, value in trained_with.items() if name.startswith(("start_", "encoder"))},
                "feature_size": module.model.feature_size,
                "false_alarm_rate": params.ood.false_alarm_rate,
                "parameters": trained_with["parameters"],
                "steps": trained_with["kept_step"],
                "batch_size": params.training_of(variant_name).batch_size,
                "seed": params.seed,
                "data_fingerprint": prepared.fingerprint(),
                "objective": _objective(trained),
                "reading": prepared.reading,
                "converted": prepared.converted,
                "finer_size": prepared.finer_size,
            }
            shape = (prepared.image_size, prepared.image_size, prepared.channels)
            card = model_card(variant_name, prepared.classes, shape, stages, threshold, facts)
            (out.path / "card.md").write_text(card)
        stage.journal.artifact(stage_folder("export", variant_name) / "card.md")


def _objective(trained: VariantConfig | StudentConfig) -> str:
    if isinstance(trained, StudentConfig):
        return f"{trained.objective}, with {trained.teacher} as its teacher"
    if not trained.trains:
        return "none, nothing was trained"
    terms = [f"{trained.w_gen:g} · {trained.generative.name}"] * (trained.w_gen > 0)
    terms += [f"{trained.w_con:g} · {trained.contrastive.name}"] * (trained.w_con > 0)
    return " + ".join(terms)
