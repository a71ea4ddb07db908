"""ood: detectors fitted on in-distribution data, thresholds from validation, measured on test and the OOD sets; what
corruptions do to accuracy, calibration and OOD score."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from components.data.prepared import Prepared
from components.evaluation.features.embedding_map import embedding_map, save_map
from components.evaluation.features.store import CORRUPTED, Embedded
from components.evaluation.ood import openood, plot_data, registry, score_table
from components.evaluation.ood.base import Batch, InDistribution
from components.evaluation.ood.hard_examples import hard_examples, write_hard_examples
from components.evaluation.ood.run import OodResult, run_detectors
from components.evaluation.probes.linear_probe import Labelled, LinearProbe
from components.evaluation.robustness import measure as robustness
from components.files import write_json
from components.model.encode import reduce_images
from pipelines.config.params import Params
from pipelines.paths import PREPARED, stage_folder
from pipelines.stages.registry import Stage
from pipelines.stages.results import constants_of
from pipelines.stages.stage_run import log_data, stage_run

STAGE = Stage(does="detectors, the map", per="encoder", after=("probe",), in_report="numbers")


def run(params: Params, variant: str) -> None:
    """Write outputs/V/ood."""
    config = replace(params.ood, detectors=tuple(registry.chosen(params.ood.detectors)))
    with stage_run(params, "ood", variant, {"embed": params.embed, "ood": config}) as stage:
        prepared = Prepared.open(PREPARED)
        sets = {name: f"ood-{name}" for name in prepared.ood}
        contexts = {"train": "detector fitting", "val": "thresholds", "test": "test"}
        log_data(stage, prepared, contexts | dict.fromkeys(sets.values(), "OOD test"))
        embedded = Embedded.open(stage_folder("embed", variant))

        scored_size = constants_of("embed", variant).get("scored_size")

        def batch(split: str) -> Batch:
            images = prepared.images(split)
            if scored_size is not None:
                images = reduce_images(images, scored_size)
            likelihoods = embedded.bits_per_dim(split), embedded.bits_without_context(split)
            return Batch(embedded.features(split), images, *likelihoods)

        train = Labelled(embedded.features("train"), prepared.labels("train"))
        probe = LinearProbe.load(stage_folder("probe", variant) / "probe.npz")
        result = run_detectors(
            InDistribution(train, batch("val"), probe),
            batch("test"),
            {name: batch(split) for name, split in sets.items()},
            prepared.ood,
            config,
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
            out.constants |= {**asdict(params.embed), "data_fingerprint": prepared.fingerprint()}
            result.fused.save(out.path / "fused.npz")
            write_json(out.path / "thresholds.json", result.thresholds)
            write_json(out.path / "left_out.json", result.left_out)
            score_table.write_scores(result.scores, list(sets), out.path / "scores.parquet")
            table = openood.openood_table(result.scores, prepared.ood)
            openood.write_csv(table, out.path / "openood.csv")
            (out.path / "openood.md").write_text(openood.markdown(table, prepared.ood))
            features = {name: embedded.features(split) for name, split in {"test": "test", **sets}.items()}
            save_map(out.path / "map.npz", embedding_map(features, params.seed), prepared.labels("test"))
            _write_hard_examples(out.path / "hardest.parquet", result, prepared, features, probe)
            plot_data.write_roc(out.path / "roc.csv", result.scores["fused"], list(sets))
            if corrupted:
                robustness.write_csv(
                    corrupted, params.embed.corruptions, params.embed.severities, out.path / "robustness.csv"
                )
                stage.journal.artifact(out.path / "robustness.csv")
        stage.journal.artifact(stage_folder("ood", variant) / "openood.md")
        for name, reason in result.left_out.items():
            print(f"detector {name} left out: {reason}")


def _write_hard_examples(
    path: Path, result: OodResult, prepared: Prepared, features: Mapping[str, np.ndarray], probe: LinearProbe
) -> None:
    images = {name: prepared.images("test" if name == "test" else f"ood-{name}") for name in features}
    labels, classes = prepared.labels("test"), prepared.classes
    write_hard_examples(
        path,
        hard_examples(result.scores, result.thresholds),
        image=lambda name, row: images[name][row],
        class_name=lambda name, row: classes[labels[row]] if name == "test" else "",
        read_as=lambda name, row: classes[probe.logits(features[name][row : row + 1]).argmax()],
    )
