"""The metrics that models are compared by, each declared once: tables, figures, the report page, the gate and MLflow's
views are made from what stands here."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.config.params import Params

CLASSES, LIKELIHOOD = "Telling classes apart", "Knowing what images look like"
UNSEEN, COST = "Knowing what it has never seen", "Cost"


def _always(params: "Params") -> str | None:
    return None


@dataclass(frozen=True)
class Metric:
    """One number a model, taken from a stage's results.json."""

    name: str
    title: str
    stage: str
    key: str  # among the stage's metrics
    form: str  # a format specification
    higher_is_better: bool
    group: str = ""  # the heading on the report page
    meaning: str = ""  # for readers of that page
    in_comparison: bool = True  # in the comparison's table and figure, on the page, in MLflow's views, open to the gate
    beside_teacher: bool = False  # in the table of students beside their teachers
    in_methods: bool = False  # in the table of a study's methods
    in_methods_figure: bool = False  # a panel in the figure of a study's or sweep's methods
    every_model_has_it: bool = False  # on whatever data: MLflow's chart of parallel lines leaves out who lacks one
    lacks: Callable[["Params"], str | None] = _always  # a setting that it is not measured without

    @property
    def address(self) -> str:
        """STAGE/KEY."""
        return f"{self.stage}/{self.key}"


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "linear_accuracy",
            "linear probe",
            *("probe", "linear_accuracy", ".1%", True, CLASSES),
            "Share of test images whose class a linear classifier reads correctly from the frozen features.",
            beside_teacher=True,
            in_methods=True,
            in_methods_figure=True,
            every_model_has_it=True,
        ),
        Metric(
            "knn_accuracy",
            "k-NN",
            *("probe", "knn_accuracy", ".1%", True, CLASSES),
            "The same, by a vote of the most similar training images: nothing is trained at all.",
            beside_teacher=True,
            in_methods=True,
            every_model_has_it=True,
        ),
        Metric(
            "few_label_accuracy",
            "10 labels a class",
            *("probe", "few_label_10_accuracy", ".1%", True, CLASSES),
            "The linear classifier again, when only ten images a class have a label.",
            lacks=lambda params: None if 10 in params.probe.shots else "10 in probe.shots",
        ),
        Metric(
            "calibration_error",
            "calibration error",
            *("probe", "linear_ece_calibrated", ".3f", False, CLASSES),
            "How far the stated confidence is off, on average: 0.02 means two percentage points.",
            in_methods=True,
            every_model_has_it=True,
        ),
        Metric(
            "bits_per_dim",
            "bits/dim",
            *("embed", "bits_per_dim/test", ".3f", False, LIKELIHOOD),
            "Bits needed to store one pixel value of a test image: the better the model knows what images look like, "
            "the fewer. Only variants with a likelihood have it.",
            in_methods=True,
            in_methods_figure=True,
        ),
        Metric(
            "reduced_bits_per_dim",
            "bits/dim, reduced",
            *("embed", "reduced_bits_per_dim/test", ".3f", False, LIKELIHOOD),
            "The same of a model that takes the likelihood of the image at a smaller size: the bits of one pixel value "
            "there. Neighbouring pixels of a smaller image are less alike, which takes more bits a value.",
            in_methods=True,
        ),
        Metric(
            "bits_per_dim_bound",
            "bits/dim, bound",
            *("pretrain", "val/bits_per_dim_bound", ".3f", False),
            in_comparison=False,
            in_methods=True,
        ),
        Metric(
            "near_ood_auroc",
            "near-OOD AUROC",
            *("ood", "fused/near/auroc", ".3f", True, UNSEEN),
            "Chance that an image of a similar but foreign kind gets a higher alarm score than a usual one. "
            "1 is perfect, 0.5 a coin toss.",
            beside_teacher=True,
            in_methods=True,
            in_methods_figure=True,
            lacks=lambda params: _without_ood_set("near", params),
        ),
        Metric(
            "far_ood_auroc",
            "far-OOD AUROC",
            *("ood", "fused/far/auroc", ".3f", True, UNSEEN),
            "The same for images that have nothing to do with the training data.",
            beside_teacher=True,
            in_methods=True,
            lacks=lambda params: _without_ood_set("far", params),
        ),
        Metric(
            "ood_fpr95",
            "OOD FPR@95",
            *("ood", "fused/mean/fpr95", ".3f", False, UNSEEN),
            "Share of usual images that raise a false alarm if 95 % of the foreign ones are to be caught.",
            every_model_has_it=True,
        ),
        Metric(
            "robustness",
            "corrupted / clean accuracy",
            *("ood", "robustness/relative_accuracy", ".1%", True, CLASSES),
            "Accuracy on blurred, noisy or otherwise damaged test images, as a share of that on clean ones.",
            in_methods=True,
            in_methods_figure=True,
            lacks=lambda params: None if params.embed.corruptions else "a corruption in embed.corruptions",
        ),
        Metric(
            "effective_rank",
            "effective rank",
            *("pretrain", "val/effective_rank", ".1f", True),
            in_comparison=False,
            in_methods=True,
        ),
        Metric(
            "training_seconds",
            "training s",
            *("pretrain", "training_seconds", ".0f", False, COST),
            "Time in the training loop.",
            beside_teacher=True,
            in_methods=True,
            every_model_has_it=True,
        ),
        Metric(
            "latency_ms",
            "ONNX ms/image",
            *("export", "onnx_latency_ms", ".2f", False, COST),
            "Time of the exported ONNX model for one image on the CPU of the machine that exported it.",
            beside_teacher=True,
            every_model_has_it=True,
        ),
    )
}


def compared() -> list[Metric]:
    """The metrics of the comparison, in the order of its table."""
    return [metric for metric in METRICS.values() if metric.in_comparison]


def measured(rows: Iterable[Mapping[str, float | None]]) -> list[Metric]:
    """Those of the comparison that at least one of the rows has."""
    known = list(rows)
    return [metric for metric in compared() if any(row.get(metric.name) is not None for row in known)]


def _without_ood_set(distance: str, params: "Params") -> str | None:
    has_one = distance in {ood.distance for ood in params.data.ood.values()}
    return None if has_one else f"an OOD set of distance {distance} in data.ood"
