"""Reports as the report stage leaves them, made up: numbers, pictures and records."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.data.prepared import Prepared
from components.distillation.config import StudentConfig
from components.objectives.config import VariantConfig
from components.plotting.style import variant_colours
from pipelines.metrics import compared
from pipelines.report_page.content import Report
from pipelines.stages.registry import reported

OOD = {"patches": "far", "held-out": "near"}
DETECTORS = {"knn": 0.8, "fused": 0.9}
FIGURES = {
    "pretrain": ("samples", "completions"),
    "probe": ("confusion", "reliability", "few_label"),
    "ood": ("scores", "roc", "map", "robustness"),
}
PROVENANCE = {
    **{"mlflow.source.git.commit": "0123456789abcdef", "git.dirty": "true", "version.torch": "2.13.0"},
    **{"hardware.cpu": "A CPU", "hardware.cores": "2", "hardware.memory": "8.0 GiB", "mlflow.user": "somebody"},
}


def picture(channels: int = 1, size: int = 8) -> bytes:
    image = np.random.default_rng(0).integers(0, 256, (size, size, channels), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if channels == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def _ood_metrics() -> dict[str, float]:
    metrics = {}
    for name, auroc in DETECTORS.items():
        metrics |= {f"{name}/threshold": 1.5, f"{name}/test/flagged": 0.041, f"{name}/mean/auroc": auroc}
        for ood in OOD:
            metrics |= {f"{name}/{ood}/auroc{end}": auroc + d for end, d in (("_low", -0.05), ("", 0), ("_high", 0.05))}
            metrics[f"{name}/{ood}/flagged"] = 0.66
    return metrics


def _hardest(channels: int, size: int) -> list[dict[str, Any]]:
    shown = {"form": "png", "picture": picture(channels, size), "read_as": "nine"}
    return [
        {"detector": name, "set": ood, "index": 7, "score": score, "flagged": score > 1.5, "class_name": label, **shown}
        for name in DETECTORS
        for ood, score, label in (("held-out", 1.25, ""), ("patches", 2.5, ""), ("test", 3.75, "eight"))
    ]


@pytest.fixture
def make_report(tmp_path: Path) -> Callable[..., Report]:
    """`make_report(number, name, {column: value}, likelihood=…, channels=…, size=…, layers=…, unmet=…, student=…)`."""

    def make(
        number: int,
        name: str,
        row: dict[str, float],
        likelihood: bool = True,
        channels: int = 1,
        size: int = 8,
        layers: bool = False,
        unmet: tuple[str, ...] = (),
        provenance: dict[str, str] | None = PROVENANCE,
        student: StudentConfig | None = None,
    ) -> Report:
        folder = tmp_path / "reports" / name
        for stage, figures in FIGURES.items():
            (folder / "figures" / stage).mkdir(parents=True)
            for figure in figures if likelihood or stage != "pretrain" else ():
                (folder / "figures" / stage / f"{figure}.png").write_bytes(picture(size=16 + number))
        pq.write_table(pa.Table.from_pylist(_hardest(channels, size)), folder / "hardest.parquet")
        left_out = {} if likelihood else {"nll": "it needs a likelihood"}
        (folder / "left_out.json").write_text(json.dumps(left_out))
        if layers:
            lines = ["layer,part,linear_accuracy,knn_accuracy", "1,encoder,0.5,0.4", "2,encoder,0.925,0.8"]
            (folder / "layers.csv").write_text("\n".join([*lines, *["3,decoder,0.6,0.5"] * likelihood]) + "\n")
        stages = {}
        for stage in (*reported(shared=True), *reported()):
            record = {
                **{"stage": stage, "variant": None if stage in reported(shared=True) else name, "seconds": 1.25},
                **{"finished": 1_800_000_000.0, **({"provenance": provenance} if provenance else {})},
            }
            stages[stage] = {
                "metrics": {},
                "constants": {"seed": 3, "parameters": 860592, "false_alarm_rate": 0.05},
                "record": record,
            }
        if student:
            stages["pretrain"]["record"]["stage"] = "distill"
        stages["probe"]["metrics"] = {"linear_accuracy_se": 0.0123, "few_label_10_std": 0.02}
        stages["baselines"]["metrics"] = {"raw_pixels/linear_accuracy": 0.611, "random_encoder/linear_accuracy": 0.222}
        stages["ood"]["metrics"] = _ood_metrics()
        (folder / "stages.json").write_text(json.dumps(stages))
        own = {**stages["probe"]["record"], "stage": "report", "finished": 1_800_000_060.0 + number}
        (folder / "record.json").write_text(json.dumps(own))
        curves = "step,contrastive_loss,val/knn_accuracy\n10,2.5,\n20,1.5,0.9\n"
        (folder / "curves.csv").write_text(curves)
        settings = student or VariantConfig(w_gen=1.0 if likelihood else 0.0, w_con=0.5)
        values = {column.name: row.get(column.name) for column in compared()}
        return Report(
            *(name, settings, folder, values, row.get("linear_accuracy", 0.0), unmet), variant_colours([name])[name]
        )

    return make


@pytest.fixture
def reports(make_report) -> list[Report]:
    """Of a variant with and one without a likelihood, in the order of params.yaml."""
    return [
        make_report(
            0, "hybrid", {"linear_accuracy": 0.951, "bits_per_dim": 1.5, "ood_fpr95": 0.1, "far_ood_auroc": 1.0}
        ),
        make_report(
            *(1, "contrastive", {"linear_accuracy": 0.96, "ood_fpr95": 0.3, "far_ood_auroc": 0.99999}),
            **{"likelihood": False, "unmet": ("bits_per_dim is missing",)},
        ),
    ]


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    sizes = {"train": 1200, "test": 300, **{f"ood-{name}": 50 for name in OOD}}
    meta = {
        **{
            "classes": ["eight", "nine"],
            "image_size": 8,
            "channels": 1,
            "seed": 4,
            "fingerprint": "f" * 64,
            "ood": OOD,
        },
        **{"splits": {name: {"count": n} for name, n in sizes.items()}},
        **{"sources": {"labelled": {"name": "digits"}, "ood-patches": {"name": "photo"}}},
    }
    return Prepared(tmp_path, meta)
