"""Our training against public libraries' on the same images, encoder size, batch, precision and machine.

    python -m pip install -r requirements/benchmarks.txt
    python -m benchmarks.against_peers --out against-peers [--seconds 300] [--parquet FILES] [--json FILE]

speed    images a second with everybody's own data pipeline, in turns; ratios compare step times with the first row's
quality  (--seconds) each trains from scratch, alone, for so long; its cosine schedule ends then, by its measured speed.
         Linear probe and k-NN on its frozen features, and its likelihood where it has one

Ours is the recipe of presets/cifar10-cpu.yaml, theirs what their examples say, with AdamW (benchmarks/peers.py), which
`ours, contrastive, AdamW` has too, at their rate. A tenth of everybody's steps is warm-up. `ours, patch tokens` and
`ours, pixel tokens` are the hybrid on one palette, so that their likelihoods can be compared (--contenders). What is
finished lies in --out and isn't run again under the same settings.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.images import add_arguments, open_images
from benchmarks.measuring import Report, Row, add_shape, circumstances, medians, parser_for, run, seconds, take_turns
from benchmarks.peers import LEARNING_RATE, METHODS, WEIGHT_DECAY, Peer, Setting
from benchmarks.trainee import ENDLESS, LIKELIHOOD, VARIANTS, Trainee, model_config, training_config
from components.data.prepared import Prepared
from components.errors import UserError
from components.evaluation.config import ProbeConfig
from components.evaluation.probes.linear_probe import Labelled
from components.evaluation.probes.run import run_probes
from components.files import read_json, write_json
from components.objectives.contrastive.nt_xent import NTXentConfig
from components.objectives.generative.autoregressive import AutoregressiveConfig

WHOLE = replace(VARIANTS["hybrid"], generative=AutoregressiveConfig())
THEIR_OPTIMIZER = "ours, contrastive, AdamW"
OURS = {
    "ours, contrastive": (VARIANTS["contrastive"], LIKELIHOOD),
    THEIR_OPTIMIZER: (VARIANTS["contrastive"], LIKELIHOOD),
    "ours, hybrid": (VARIANTS["hybrid"], LIKELIHOOD),
    "ours, patch tokens": (WHOLE, "palette"),
    "ours, pixel tokens": (WHOLE, "palette"),
}
DEFAULT = ["ours, contrastive", THEIR_OPTIMIZER, "ours, hybrid", *METHODS]
PACKAGES = ("lightly", "stable-pretraining", "timm", "torchvision")


class Contender(Protocol):
    def train(self, steps: int) -> None: ...
    def pause(self) -> None: ...
    def features(self, images: np.ndarray) -> np.ndarray: ...


def make(name: str, options: argparse.Namespace, prepared: Prepared, steps: int) -> Contender:
    """A contender at the beginning of so many steps."""
    images = prepared.images(prepared.pretrain_split)
    training = training_config(options.batch_size, steps)
    if name in OURS:
        variant, likelihood = OURS[name]
        if name == THEIR_OPTIMIZER:
            rate = LEARNING_RATE * 256 / options.batch_size  # ours is scaled with the batch, theirs is not
            training = replace(training, optimizer="adamw", learning_rate=rate, weight_decay=WEIGHT_DECAY)
        model = model_config(1 if name == "ours, pixel tokens" else options.patch_size, options.size, likelihood)
        return Trainee(images, prepared.palette, model, variant, training, seed=options.seed)
    model, temperature = model_config(options.patch_size, options.size), NTXentConfig().temperature
    try:
        return Peer(name, Setting(images, model, training, temperature, options.seed))
    except ImportError as error:
        raise UserError(f"{name}: {error}. Install requirements/benchmarks.txt, or choose --contenders.") from error


def measure_speed(options: argparse.Namespace, prepared: Prepared) -> dict[str, list[float]]:
    """Seconds a step of each contender in each round."""

    def turn(contender: Contender) -> float:
        contender.train(1)  # a peer's workers start with it
        spent = seconds(lambda: contender.train(options.steps)) / options.steps
        contender.pause()
        return spent

    contenders = {name: make(name, options, prepared, ENDLESS) for name in options.contenders}
    for contender in contenders.values():
        contender.train(2)  # the first steps allocate, and compile
        contender.pause()
    return take_turns({name: partial(turn, contender) for name, contender in contenders.items()}, options.rounds)


def measure_quality(name: str, step_seconds: float, options: argparse.Namespace, prepared: Prepared) -> Row:
    """What the probes find in a contender's features after `options.seconds` of training."""
    steps = max(10, round(options.seconds / step_seconds))
    contender = make(name, options, prepared, steps)
    spent = seconds(lambda: contender.train(steps))
    contender.pause()
    train, val, test = (
        Labelled(contender.features(prepared.images(split)), prepared.labels(split))
        for split in ("train", "val", "test")
    )
    found = run_probes(train, val, test, ProbeConfig(shots=()), options.seed).metrics
    return {
        "contender": name,
        "training s": spent,
        "steps": steps,
        "epochs": steps * options.batch_size / len(prepared.images(prepared.pretrain_split)),
        "linear probe %": 100 * found["linear_accuracy"],
        "standard error": 100 * found["linear_accuracy_se"],
        "k-NN %": 100 * found["knn_accuracy"],
        "NLL nats/image": contender.nats_per_image(prepared.images("test")) if isinstance(contender, Trainee) else None,
    }


def once(path: Path, settings: dict[str, Any], measure: Callable[[], Any]) -> Any:
    """What `measure()` returns, or what it returned under these settings before."""
    if path.exists() and (known := read_json(path))["settings"] == settings:
        return known["found"]
    found = measure()
    write_json(path, {"settings": settings, "found": found, **circumstances(PACKAGES)})
    return found


def main() -> None:
    parser = parser_for(__doc__, rounds=4)
    add_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for what is finished")
    parser.add_argument("--seconds", type=float, help="also compare the quality after so much training")
    parser.add_argument("--contenders", nargs="+", choices=[*OURS, *METHODS], default=DEFAULT, metavar="NAME")
    add_shape(parser, batch_size=128)
    parser.add_argument("--steps", type=int, default=4, help="of a turn")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report = Report(options, PACKAGES)
    with open_images(options, rgb=True) as prepared:
        settings = {name: vars(options)[name] for name in ("size", "patch_size", "batch_size", "seed")}
        settings["fingerprint"] = prepared.fingerprint()
        turns = {name: vars(options)[name] for name in ("contenders", "steps", "rounds")}
        found = once(options.out / "speed.json", settings | turns, lambda: measure_speed(options, prepared))
        step_seconds = medians(found)
        first = options.contenders[0]
        rows = [
            {
                "contender": name,
                "step ms": 1000 * middle,
                "images/s": options.batch_size / middle,
                f"time ÷ {first}": middle / step_seconds[first],
            }
            for name, middle in step_seconds.items()
        ]
        report.add("speed", rows, found)
        if not options.seconds:
            return
        learned = []
        for name in options.contenders:
            path = options.out / f"{name.lower().replace(',', '').replace(' ', '-')}.json"
            measure = partial(measure_quality, name, step_seconds[name], options, prepared)
            learned.append(once(path, settings | {"seconds": options.seconds}, measure))
            print(f"{name}: {learned[-1]['linear probe %']:.1f} % by the linear probe", flush=True)
        report.add("quality", learned)


if __name__ == "__main__":
    run(main)
