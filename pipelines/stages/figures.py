"""Every figure of a variant or student, drawn by `report` from the files that earlier stages saved: another look of a
figure trains nothing and fits nothing again."""

from collections.abc import Callable
from pathlib import Path

from components.data.prepared import Prepared
from components.errors import MissingFileError
from components.evaluation.features.embedding_map import load_map
from components.evaluation.ood.score_table import read_scores
from components.evaluation.probes import layer_probes
from components.evaluation.probes.calibration import Reliability
from components.files import read_arrays, read_json, read_rows
from components.plotting import ood as ood_figures
from components.plotting import probes as probe_figures
from components.plotting.embedding_map import map_figure
from components.plotting.robustness import robustness_by_severity
from components.plotting.training import image_rows, training_curves
from pipelines.paths import stage_folder
from pipelines.stages.results import constants_of, metrics_of


def draw_figures(name: str, prepared: Prepared, folder: Path, whole: bool = True) -> None:
    """Write `folder`/STAGE/FIGURE.png. Not `whole`: figures are left out, and said to be, whose files are missing.

    Raises:
        MissingFileError: a file is missing that a figure is drawn from.
    """
    for stage, draw_stage in STAGES.items():
        (folder / stage).mkdir(parents=True)
        try:
            draw_stage(stage_folder(stage, name), folder / stage, name, prepared)
        except MissingFileError as error:
            if whole:
                raise
            print(f"{name}: figures of {stage} left out: {error.path.name} is not here")


def _pretrain(saved: Path, folder: Path, name: str, prepared: Prepared) -> None:
    rows = read_rows(saved / "curves.csv", ["step"])
    history = [{logged: float(value) for logged, value in row.items() if value} for row in rows]
    if len(history) > 1:  # nothing was trained of a pretrained encoder
        training_curves(history, folder / "training.png")
    for images in ("samples", "completions"):  # of a variant that generates
        if (saved / f"{images}.npz").exists():
            image_rows(read_arrays(saved / f"{images}.npz"), folder / f"{images}.png")


def _probe(saved: Path, folder: Path, name: str, prepared: Prepared) -> None:
    kept = read_arrays(saved / "figures.npz")
    probe_figures.confusion_matrix(kept["confusion"], prepared.classes, folder / "confusion.png")
    before, after = (
        Reliability(*(kept[f"{bins}/{field}"] for field in Reliability.__dataclass_fields__))
        for bins in ("reliability", "reliability_calibrated")
    )
    probe_figures.reliability_diagram(before, after, folder / "reliability.png")
    few_label = {int(key.removeprefix("few_label/")): kept[key] for key in kept if key.startswith("few_label/")}
    all_labels = metrics_of("probe", name)["linear_accuracy"]
    probe_figures.few_label_curve({name: few_label}, {name: all_labels}, folder / "few_label.png")
    if (saved / "layers.csv").exists():
        probe_figures.layer_curve(layer_probes.read_csv(saved / "layers.csv"), folder / "layers.png")


def _ood(saved: Path, folder: Path, name: str, prepared: Prepared) -> None:
    metrics, constants = metrics_of("ood", name), constants_of("ood", name)
    threshold = read_json(saved / "thresholds.json", "fused")
    ood_figures.auroc_intervals(metrics, prepared.ood, folder / "auroc.png")
    if constants["corruptions"]:
        corrupted = {n.removeprefix("robustness/"): v for n, v in metrics.items() if n.startswith("robustness/")}
        measured = corrupted, constants["corruptions"], constants["severities"]
        robustness_by_severity(*measured, folder / "robustness.png")
    map_figure(*load_map(saved / "map.npz"), prepared.classes, name, folder / "map.png")
    scores = read_scores(saved / "scores.parquet")  # last, because an archive may lack it
    ood_figures.roc_curves(scores, prepared.ood, folder / "roc.png")
    ood_figures.score_histograms(scores["fused"], threshold, prepared.ood, folder / "scores.png")


STAGES: dict[str, Callable[[Path, Path, str, Prepared], None]] = {"pretrain": _pretrain, "probe": _probe, "ood": _ood}
