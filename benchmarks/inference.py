"""Images a second of a trained model at work, by batch size.

    python -m benchmarks.inference [--only pytorch export variants] [--image-size 64 --patch-size 8] [--size tiny]
                                   [--parquet FILES] [--json FILE]

pytorch  embedding (contrastive variant), and embedding with likelihood (hybrid), as the stage `embed` computes them
export   the whole exported graph, from uint8 pixels to probabilities and OOD score: ONNX Runtime against PyTorch. Both
         on the CPU, ONNX Runtime on all cores, PyTorch on as many threads as the JSON's `hardware` says
variants the exported graphs of the contrastive variant and of the hybrid, which has the likelihood, in ONNX Runtime

Weights are random, probe and OOD score are fitted on their features: what was learned changes nothing about the time.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.images import add_arguments, open_images
from benchmarks.measuring import Report, Row, add_shape, medians, parser_for, rate_of, run, take_turns
from benchmarks.trainee import VARIANTS, model_config
from components.data.prepared import Prepared
from components.evaluation.ood.base import Batch, InDistribution
from components.evaluation.ood.detectors.fused import Fused
from components.evaluation.probes.linear_probe import Labelled
from components.evaluation.probes.run import fit_linear
from components.export.config import ExportConfig
from components.export.graph import ExportedModel, export_onnx
from components.export.session import open_session, run_session
from components.model.build import Architecture, build
from components.model.encode import encode_images
from components.model.gcrl import GCRL

PARTS = ["pytorch", "export", "variants"]
FITTED = 1000  # images that probe and OOD score are fitted on
Turns = dict[str, Callable[[], float]]


def random_model(variant: str, options: argparse.Namespace, prepared: Prepared) -> GCRL:
    shape = model_config(options.patch_size, options.size)
    architecture = Architecture.of(shape, VARIANTS[variant], prepared.image_size, prepared.palette)
    return build(architecture, prepared.palette, seed=0).eval()


def pytorch(batch: int, options: argparse.Namespace, prepared: Prepared) -> Turns:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = np.resize(prepared.images("train")[:batch], (batch, *prepared.images("train").shape[1:]))
    ways = {"embedding": "contrastive", "embedding and likelihood": "hybrid"}
    models = {name: random_model(variant, options, prepared).to(device) for name, variant in ways.items()}
    return {  # results lie on the CPU: a GPU has finished
        name: rate_of(partial(encode_images, model, images, device, batch), batch, options.turn)
        for name, model in models.items()
    }


def shipped(variant: str, options: argparse.Namespace, prepared: Prepared) -> ExportedModel:
    """The variant with a probe and an OOD score."""
    model = random_model(variant, options, prepared)
    features, batches = {}, {}
    for split in ("train", "val"):
        images = prepared.images(split)[:FITTED]
        found, nll = encode_images(model, images, torch.device("cpu"))
        features[split] = Labelled(found.numpy(), prepared.labels(split)[:FITTED])
        bits = None if nll is None else (nll / np.log(2) / prepared.channels).numpy()
        batches[split] = Batch(found.numpy(), images, bits)
    probe = fit_linear(features["train"], features["val"], (0.01,))
    fused = Fused.fit(InDistribution(features["train"], batches["val"], probe), k=1)
    return ExportedModel(model, probe, fused, float(np.quantile(fused.score(batches["val"]), 0.95)))


def export(batch: int, module: ExportedModel, path: Path, images: np.ndarray, turn: float) -> Turns:
    session = open_session(path)
    images = np.resize(images[:batch], (batch, *images.shape[1:]))

    @torch.no_grad()
    def in_pytorch() -> None:
        module(torch.from_numpy(images))

    return {
        "PyTorch": rate_of(in_pytorch, batch, turn),
        "ONNX Runtime": rate_of(partial(run_session, session, images), batch, turn),
    }


def variants(batch: int, paths: dict[str, Path], images: np.ndarray, turn: float) -> Turns:
    images = np.resize(images[:batch], (batch, *images.shape[1:]))
    return {
        name: rate_of(partial(run_session, open_session(path), images), batch, turn) for name, path in paths.items()
    }


def compare(part: str, turns: Callable[[int], Turns], options: argparse.Namespace, report: Report) -> None:
    rows: list[Row] = []
    rounds: dict[str, list[float]] = {}
    for batch in options.batch_sizes:
        found = take_turns(turns(batch), options.rounds)
        rounds |= {f"{name}, batch {batch}": values for name, values in found.items()}
        first, second = medians(found).items()
        rows.append(
            {
                "batch": batch,
                **{f"{name}, images/s": rate for name, rate in (first, second)},
                f"{second[0]} ÷ {first[0]}": second[1] / first[1],
            }
        )
    report.add(part, rows, rounds)


def main() -> None:
    parser = parser_for(__doc__, rounds=3)
    add_arguments(parser)
    add_shape(parser)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--turn", type=float, default=0.5, help="seconds of a turn")
    options = parser.parse_args()
    report = Report(options, packages=("onnxruntime",))
    with open_images(options) as prepared, tempfile.TemporaryDirectory(prefix="benchmark-") as place:
        if "pytorch" in options.only:
            compare("pytorch", lambda batch: pytorch(batch, options, prepared), options, report)
        images = np.array(prepared.images("train")[: max(options.batch_sizes)])
        modules, paths = {}, {}
        for variant in ("contrastive", "hybrid") if {"export", "variants"} & set(options.only) else ():
            modules[variant], paths[variant] = shipped(variant, options, prepared), Path(place) / f"{variant}.onnx"
            shape = prepared.image_size, prepared.channels
            export_onnx(modules[variant], *shape, paths[variant], ExportConfig().opset)
        if "export" in options.only:
            whole = modules["hybrid"], paths["hybrid"]
            compare("export", lambda batch: export(batch, *whole, images, options.turn), options, report)
        if "variants" in options.only:
            compare("variants", lambda batch: variants(batch, paths, images, options.turn), options, report)


if __name__ == "__main__":
    run(main)
