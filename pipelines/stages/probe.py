"""probe: how much of the label a simple classifier reads out of the frozen features."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from components.data.prepared import Prepared
from components.evaluation.features.store import LAYERS, Embedded
from components.evaluation.probes import layer_probes, plot_data
from components.evaluation.probes.linear_probe import Labelled
from components.evaluation.probes.run import ProbeResult, run_probes
from pipelines.config.params import Params
from pipelines.paths import PREPARED, stage_folder
from pipelines.stages.registry import Stage
from pipelines.stages.stage_run import log_data, stage_run

STAGE = Stage(does="classifiers on frozen features", per="encoder", after=("embed",), in_report="numbers")
RELIABILITY = ("reliability", "reliability_calibrated")  # of ProbeResult


def run(params: Params, variant: str) -> None:
    """Write outputs/V/probe."""
    with stage_run(params, "probe", variant, {"probe": params.probe}) as stage:
        prepared = Prepared.open(PREPARED)
        log_data(stage, prepared, {"train": "probe fitting", "val": "model selection", "test": "test"})
        embedded = Embedded.open(stage_folder("embed", variant))
        train, val, test = (Labelled(embedded.features(s), prepared.labels(s)) for s in ("train", "val", "test"))
        result = run_probes(train, val, test, params.probe, params.seed)
        labels = {split: prepared.labels(split) for split in ("train", "val", "test")}
        layers = layer_probes.probe_layers(embedded.folder / LAYERS, labels, params.probe)
        with stage.folder() as out:
            out.metrics, out.constants = result.metrics, result.constants
            for layer, _, linear, knn in layers:
                out.metrics |= {f"layer_{layer}/linear_accuracy": linear, f"layer_{layer}/knn_accuracy": knn}
            out.constants["data_fingerprint"] = prepared.fingerprint()
            result.probe.save(out.path / "probe.npz")
            plot_data.write_confusion(out.path / "confusion.csv", result.confusion, prepared.classes)
            plot_data.write_reliability(out.path / "reliability.csv", result.reliability_calibrated)
            _keep_for_figures(result, out.path)
            if layers:
                layer_probes.write_csv(layers, out.path / "layers.csv")


def _keep_for_figures(result: ProbeResult, folder: Path) -> None:
    kept: dict[str, Any] = {"confusion": result.confusion}
    kept |= {f"{bins}/{name}": v for bins in RELIABILITY for name, v in asdict(getattr(result, bins)).items()}
    kept |= {f"few_label/{shots}": accuracies for shots, accuracies in result.few_label.items()}
    np.savez(folder / "figures.npz", **kept)
