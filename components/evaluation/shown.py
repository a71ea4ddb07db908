"""Pictures of what the numbers are about: a map of the features, and the images that detectors get most wrong."""

from pathlib import Path

from components.data.prepared import Prepared
from components.evaluation.embedding_map import embedding_map
from components.evaluation.features import Embedded
from components.evaluation.figures_map import map_figure
from components.evaluation.hardest import hardest, write_hardest
from components.evaluation.ood import OodResult
from components.evaluation.probes import LinearProbe


def write_shown(
    out: Path, result: OodResult, prepared: Prepared, embedded: Embedded, probe: LinearProbe, title: str, seed: int
) -> None:
    """Write `map.png` (under this title) and `hardest.parquet` to `out`."""
    splits = {"test": "test", **{name: f"ood-{name}" for name in prepared.ood}}
    features = {name: embedded.features(split) for name, split in splits.items()}
    images = {name: prepared.images(split) for name, split in splits.items()}
    labels, classes = prepared.labels("test"), prepared.classes
    map_figure(embedding_map(features, seed), labels, classes, title, out / "map.png")
    write_hardest(
        out / "hardest.parquet",
        hardest(result.scores, result.thresholds),
        image=lambda name, row: images[name][row],
        class_name=lambda name, row: classes[labels[row]] if name == "test" else "",
        read_as=lambda name, row: classes[probe.logits(features[name][row : row + 1]).argmax()],
    )
