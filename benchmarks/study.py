"""Variants × seeds on one data set, outside of DVC: the numbers of docs/results.md.

    python -m benchmarks.study --out study-digits --seeds 1 2 3
    python -m benchmarks.study --out study-digits-all --seeds 1 2 3 --no-held-out
    python -m benchmarks.study --out study-zoo --seeds 1 2 3 --params presets/zoo-digits-cpu.yaml

A seed decides splits, initial weights, batches and views. Each (seed, variant) writes one JSON file as soon as it is
done; run again, the command goes on with what is missing. Takes the settings of params.yaml (or --params FILE).
"""

import argparse
import dataclasses
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

from components.data.prepare import prepare
from components.data.prepared import Prepared
from components.evaluation.detectors import Batch, InDistribution
from components.evaluation.embed import embed
from components.evaluation.features import Embedded
from components.evaluation.ood import run_detectors
from components.evaluation.probes import Labelled, run_probes
from components.files import write_json
from components.model.build import Architecture, build
from components.model.encode import encode_images
from components.objectives.config import VariantConfig
from components.training.device import choose_device, describe_hardware
from components.training.diagnostics import feature_health
from components.training.loop import PretrainData, pretrain
from pipelines.config import Params, load_params

SHOWN = (
    ("linear_accuracy", "linear probe %", 100),
    ("knn_accuracy", "k-NN %", 100),
    ("few_label_10_accuracy", "10 labels a class %", 100),
    ("linear_ece_calibrated", "calibration error", 1),
    ("bits_per_dim/test", "bits/dim", 1),
    ("val/effective_rank", "effective rank", 1),
    ("training_seconds", "training s", 1),
)


def run_one(params: Params, prepared: Prepared, variant_name: str, folder: Path) -> dict[str, Any]:
    """Train, embed, probe and score OOD; all metrics of one variant."""
    variant = params.variant(variant_name)
    device = choose_device(params.training)
    architecture = Architecture.of(params.model, variant, prepared.image_size, prepared.palette)
    model = build(architecture, prepared.palette, params.seed)
    labelled = {s: (prepared.images(s), prepared.labels(s)) for s in ("train", "val")}
    split = prepared.pretrain_split
    data = PretrainData(prepared.images(split), labelled["train"], labelled["val"], prepared.labels(split))
    started = time.monotonic()
    trained = pretrain(
        model,
        data,
        variant,
        params.training,
        params.augmentation,
        params.seed,
        folder / "resume.pt",
        f"{variant_name}-{params.seed}",
        lambda step, row: print(f"\r  step {step}/{params.training.steps}", end="", flush=True),
    )
    print(f"  {time.monotonic() - started:.0f} s")
    metrics = {**trained.metrics, "training_seconds": sum(row["seconds"] for row in trained.history)}
    metrics |= embed(model.eval(), prepared, folder, device)
    embedded = Embedded.open(folder)
    train, val, test = (Labelled(embedded.features(s), prepared.labels(s)) for s in ("train", "val", "test"))
    probes = run_probes(train, val, test, params.probe, params.seed)
    metrics |= probes.metrics

    def batch(split: str) -> Batch:
        likelihoods = embedded.bits_per_dim(split), embedded.bits_without_context(split)
        return Batch(embedded.features(split), prepared.images(split), *likelihoods)

    ood = {name: batch(f"ood-{name}") for name in prepared.ood}
    in_distribution = InDistribution(train, batch("val"), probes.probe)
    metrics |= run_detectors(in_distribution, batch("test"), ood, prepared.ood, params.ood, params.seed).metrics
    return metrics


def raw_pixels(params: Params, prepared: Prepared) -> dict[str, float]:
    """The floor: the probes on pixels."""
    train, val, test = (
        Labelled(prepared.images(s).reshape(len(prepared.images(s)), -1) / 255, prepared.labels(s))
        for s in ("train", "val", "test")
    )
    return run_probes(train, val, test, params.probe, params.seed).metrics


def untrained(params: Params, prepared: Prepared) -> dict[str, float]:
    """The floor of an encoder: the probes on the features that it begins with."""
    architecture = Architecture.of(params.model, VariantConfig(0, 1), prepared.image_size, prepared.palette)
    model, device = build(architecture, prepared.palette, params.seed).eval(), choose_device(params.training)
    features = {s: encode_images(model.to(device), prepared.images(s), device)[0] for s in ("train", "val", "test")}
    train, val, test = (Labelled(features[s].numpy(), prepared.labels(s)) for s in features)
    rank = feature_health(features["val"])["effective_rank"]
    return run_probes(train, val, test, params.probe, params.seed).metrics | {"val/effective_rank": rank}


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Mean ± standard deviation over seeds, Markdown."""
    columns = list(SHOWN)
    names = sorted({k for rows in results.values() for row in rows for k in row if k.startswith("fused/")})
    columns += [(n, f"{n.split('/')[1]} AUROC", 1) for n in names if n.endswith("/auroc")]
    lines = ["| variant | " + " | ".join(c[1] for c in columns) + " |", "|---|" + "---|" * len(columns)]
    for variant, rows in results.items():
        cells = []
        for name, _, factor in columns:
            values = [row[name] * factor for row in rows if name in row]
            spread = statistics.stdev(values) if len(values) > 1 else math.nan
            digits = 1 if factor == 100 or name.endswith(("seconds", "rank")) else 3
            cells.append(f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}" if values else "–")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--variants", nargs="+", help="default: all of the params file")
    parser.add_argument("--no-held-out", action="store_true", help="keep every class (no near-OOD set)")
    options = parser.parse_args()
    base = load_params(options.params)
    variants = options.variants or list(base.variants)
    results: dict[str, list[dict[str, float]]] = {"raw pixels": [], "untrained": [], **{v: [] for v in variants}}
    for seed in options.seeds:
        data = base.data
        if options.no_held_out:
            data = dataclasses.replace(data, ood={k: v for k, v in data.ood.items() if not v.held_out_classes})
        params = base.model_copy(update={"seed": seed, "data": data})
        root = options.out / f"seed-{seed}"
        if not (root / "data" / "dataset.json").exists():
            prepare(data, seed, root / "data", params.training.batch_size)
        prepared = Prepared.open(root / "data")
        results["raw pixels"].append(raw_pixels(params, prepared))
        results["untrained"].append(untrained(params, prepared))
        for variant in variants:
            done = root / f"{variant}.json"
            if not done.exists():
                print(f"seed {seed}, {variant}")
                folder = root / variant
                folder.mkdir(parents=True, exist_ok=True)
                metrics = run_one(params, prepared, variant, folder)
                hardware = describe_hardware(choose_device(params.training))
                constants = {"seed": seed, "data_fingerprint": prepared.fingerprint(), "hardware": hardware}
                write_json(done, {"metrics": metrics, "constants": constants})
            results[variant].append(json.loads(done.read_text())["metrics"])
    text = table(results)
    (options.out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
