"""Pictures of what the numbers are about: a map of the features, and the images that detectors get most wrong."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.data.prepared import Prepared
from components.evaluation.features.embedding_map import Mapped, embedding_map
from components.evaluation.features.store import Embedded
from components.evaluation.ood.hard_examples import hardest, write_hardest
from components.evaluation.ood.run import OodResult
from components.evaluation.probes.run import LinearProbe
from components.plotting.embedding_map import map_figure

MAP = "map.npz"


def write_shown(
    out: Path, result: OodResult, prepared: Prepared, embedded: Embedded, probe: LinearProbe, seed: int
) -> None:
    """Write `map.npz`, which `draw_map` reads, and `hardest.parquet` to `out`."""
    splits = {"test": "test", **{name: f"ood-{name}" for name in prepared.ood}}
    features = {name: embedded.features(split) for name, split in splits.items()}
    images = {name: prepared.images(split) for name, split in splits.items()}
    labels, classes = prepared.labels("test"), prepared.classes
    places = {f"{name}/{k}": v for name, at in embedding_map(features, seed).items() for k, v in at._asdict().items()}
    np.savez_compressed(out / MAP, labels=labels, **places)
    write_hardest(
        out / "hardest.parquet",
        hardest(result.scores, result.thresholds),
        image=lambda name, row: images[name][row],
        class_name=lambda name, row: classes[labels[row]] if name == "test" else "",
        read_as=lambda name, row: classes[probe.logits(features[name][row : row + 1]).argmax()],
    )


def draw_map(folder: Path, classes: Sequence[str], title: str) -> None:
    """Draw `map.png` under this title."""
    with np.load(folder / MAP) as kept:
        names = [key.removesuffix("/rows") for key in kept if key.endswith("/rows")]
        places = {name: Mapped(kept[f"{name}/rows"], kept[f"{name}/positions"]) for name in names}
        map_figure(places, kept["labels"], classes, title, folder / "map.png")
