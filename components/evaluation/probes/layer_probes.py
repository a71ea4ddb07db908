"""A linear and a k-NN probe on the features after every block."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.evaluation.config import ProbeConfig
from components.evaluation.probes.linear_probe import Labelled
from components.evaluation.probes.run import accuracy, fit_linear, knn_probe
from components.files import atomic_file, read_array, read_rows

PARTS = ("encoder", "decoder")


class LayerAccuracy(NamedTuple):
    """What a layer's features know of the classes."""

    layer: int  # counted from the input on, the encoder's blocks first; the first is 1
    part: str  # encoder or decoder
    linear_accuracy: float
    knn_accuracy: float


def probe_layers(folder: Path, labels: Mapping[str, np.ndarray], config: ProbeConfig) -> list[LayerAccuracy]:
    """Probe every layer in `folder`, the `layers` folder of the embed stage.

    `labels` are all those of train, val and test, (N,) each. As in `run_probes`, probes are fitted on train, chosen on
    val and measured on test, here on the images whose features were kept. One layer is held at a time.
    """
    found: list[LayerAccuracy] = []
    for part in PARTS:
        if not (folder / f"train.{part}.npy").exists():
            continue
        files = {
            split: read_array(folder / f"{split}.{part}.npy", "float16", 3, mapped=True) for split in labels
        }  # (layers, N, D)
        kept = {
            split: of_split[read_array(folder / f"{split}.rows.npy", "int64", 1)] for split, of_split in labels.items()
        }
        for index in range(len(files["train"])):
            train, val, test = (
                Labelled(files[split][index].astype(np.float32), kept[split]) for split in ("train", "val", "test")
            )
            linear = accuracy(fit_linear(train, val, config.l2).logits(test.features), test.labels)
            found.append(LayerAccuracy(len(found) + 1, part, linear, knn_probe(train, val, test, config.k)[0]))
    return found


def write_csv(layers: Sequence[LayerAccuracy], path: Path | str) -> None:
    """One row a layer, `layer,part,linear_accuracy,knn_accuracy`."""
    with atomic_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(LayerAccuracy._fields)
        writer.writerows((layer, part, f"{linear:.6g}", f"{knn:.6g}") for layer, part, linear, knn in layers)


def read_csv(path: Path | str) -> list[LayerAccuracy]:
    """What `write_csv` wrote."""
    rows = (row.values() for row in read_rows(path, LayerAccuracy._fields))
    return [LayerAccuracy(int(layer), part, float(linear), float(knn)) for layer, part, linear, knn in rows]
