"""ood: detectors fitted on in-distribution data, thresholds from validation, measured on test and the OOD sets; what
corruptions do to accuracy, calibration and OOD score."""

import numpy as np

from components.data.prepared import Prepared
from components.evaluation import figures_ood, figures_robustness, openood, plot_data, robustness, score_table
from components.evaluation.detectors import Batch, InDistribution
from components.evaluation.features import CORRUPTED, Embedded
from components.evaluation.ood import run_detectors
from components.evaluation.probes import Labelled, LinearProbe
from components.evaluation.shown import write_shown
from components.files import write_json
from pipelines.config import Params
from pipelines.paths import PREPARED, stage_folder
from pipelines.stages.tracked import log_data, tracked


def run(params: Params, variant: str) -> None:
    """Write outputs/V/ood."""
    with tracked(params, "ood", variant, {"embed": params.embed, "ood": params.ood}) as stage:
        prepared = Prepared.open(PREPARED)
        sets = {name: f"ood-{name}" for name in prepared.ood}
        contexts = {"train": "detector fitting", "val": "thresholds", "test": "test"}
        log_data(stage, prepared, contexts | dict.fromkeys(sets.values(), "OOD test"))
        embedded = Embedded.open(stage_folder("embed", variant))

        def batch(split: str) -> Batch:
            likelihoods = embedded.bits_per_dim(split), embedded.bits_without_context(split)
            return Batch(embedded.features(split), prepared.images(split), *likelihoods)

        train = Labelled(embedded.features("train"), prepared.labels("train"))
        probe = LinearProbe.load(stage_folder("probe", variant) / "probe.npz")
        result = run_detectors(
            InDistribution(train, batch("val"), probe),
            batch("test"),
            {name: batch(split) for name, split in sets.items()},
            prepared.ood,
            params.ood,
            params.seed,
        )
        corrupted: dict[str, float] = {}
        if params.embed.corruptions:
            copies = Embedded.open(stage_folder("embed", variant) / CORRUPTED)
            rows, clean, copies_of = robustness.open_corrupted(embedded, copies, params.embed)
            labels, threshold = prepared.labels("test")[rows], result.thresholds["fused"]
            corrupted = robustness.measure_robustness(clean, copies_of, labels, probe, result.fused, threshold)
        with stage.folder() as out:
            out.metrics = result.metrics | {f"robustness/{name}": value for name, value in corrupted.items()}
            out.constants = {**result.constants, "calibration_bins": robustness.CALIBRATION_BINS}
            out.constants["data_fingerprint"] = prepared.fingerprint()
            result.fused.save(out.path / "fused.npz")
            write_json(out.path / "thresholds.json", result.thresholds)
            write_json(out.path / "left_out.json", result.left_out)
            for detector, scores in result.scores.items():
                for split, values in scores.items():
                    np.save(out.path / f"{detector}.{split}.scores.npy", values)
            score_table.write_scores(result.scores, list(sets), out.path / "scores.parquet")
            table = openood.openood_table(result.scores, prepared.ood)
            openood.write_csv(table, out.path / "openood.csv")
            (out.path / "openood.md").write_text(openood.markdown(table, prepared.ood))
            write_shown(out.path, result, prepared, embedded, probe, variant, params.seed)
            fused = result.scores["fused"]
            plot_data.write_roc(out.path / "roc.csv", fused, list(sets))
            figures_ood.roc_curves(result.scores, prepared.ood, out.path / "roc.png")
            figures_ood.auroc_intervals(result.metrics, prepared.ood, out.path / "auroc.png")
            figures_ood.score_histograms(fused, result.thresholds["fused"], prepared.ood, out.path / "scores.png")
            if corrupted:
                measured = corrupted, params.embed.corruptions, params.embed.severities
                robustness.write_csv(*measured, out.path / "robustness.csv")
                figures_robustness.robustness_by_severity(*measured, out.path / "robustness.png")
                stage.journal.artifact(out.path / "robustness.csv")
        stage.journal.artifact(stage_folder("ood", variant) / "openood.md")
        for name, reason in result.left_out.items():
            print(f"detector {name} left out: {reason}")
