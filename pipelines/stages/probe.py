"""probe: how much of the label a simple classifier reads out of the frozen features."""

from components.data.prepared import Prepared
from components.evaluation import figures_probe, layer_probes, plot_data
from components.evaluation.features import LAYERS, Embedded
from components.evaluation.probes import Labelled, run_probes
from pipelines.config import Params
from pipelines.paths import PREPARED, stage_folder
from pipelines.stages.tracked import log_data, tracked


def run(params: Params, variant: str) -> None:
    """Write outputs/V/probe."""
    with tracked(params, "probe", variant, {"probe": params.probe}) as stage:
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
            figures_probe.confusion_matrix(result.confusion, prepared.classes, out.path / "confusion.png")
            figures_probe.reliability_diagram(
                result.reliability, result.reliability_calibrated, out.path / "reliability.png"
            )
            figures_probe.few_label_curve(
                {variant: result.few_label}, {variant: result.metrics["linear_accuracy"]}, out.path / "few_label.png"
            )
            if layers:
                layer_probes.write_csv(layers, out.path / "layers.csv")
                figures_probe.layer_curve(layers, out.path / "layers.png")
