"""What test_ranks.py lets processes do; `python -m ranks_work FOLDER` is a run that does not end by itself."""

import copy
import os
import pickle
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.data.config import AugmentationConfig
from components.errors import ConfigError, UserError
from components.model.gcrl import GCRL
from components.objectives.adversarial.aae import AAEConfig
from components.objectives.adversarial.bigan import BiGANConfig
from components.objectives.base import TrainingSet
from components.objectives.clustering.deepcluster import DeepClusterConfig
from components.objectives.clustering.local_aggregation import LocalAggregationConfig
from components.objectives.config import VariantConfig
from components.objectives.contrastive.cacr import CACRConfig
from components.objectives.contrastive.cmc import CMCConfig
from components.objectives.contrastive.cpc import CPCConfig
from components.objectives.contrastive.demi import DEMIConfig
from components.objectives.contrastive.dim import DIMConfig
from components.objectives.contrastive.instdisc import InstDiscConfig
from components.objectives.contrastive.loco import LoCoConfig
from components.objectives.contrastive.moco import MoCoConfig
from components.objectives.contrastive.moco_v3 import MoCoV3Config
from components.objectives.contrastive.pirl import PIRLConfig
from components.objectives.contrastive.supcon import SupConConfig
from components.objectives.generative.autoregressive import AutoregressiveConfig
from components.objectives.generative.masked import MaskedConfig
from components.objectives.generative.permuted import PermutedConfig
from components.objectives.generative.pixelcnn import PixelCNNConfig
from components.objectives.generative.replaced import ReplacedConfig
from components.objectives.generative.vae import VAEConfig
from components.objectives.generative.vqvae import VQVAEConfig
from components.objectives.objective import Objective, build_objective
from components.objectives.predictive.relative_position import RelativePositionConfig
from components.objectives.predictive.rotation import RotationConfig
from components.training.config import TrainingConfig
from components.training.data import step_generator
from components.training.distributed import Ranks
from components.training.launch import OnMetrics
from components.training.loop import Run, execution_of, pretrain, train_beside_others
from components.training.step import backward
from components.training.validation import PretrainData
from components.training.views import draw_views

HYBRID = VariantConfig(0.7, 1.3)
ONE_SCORED = AutoregressiveConfig(scored_views=1)
AUGMENTATION = AugmentationConfig(translate=0.2, brightness=0.3)
LOCAL_AGGREGATION = LocalAggregationConfig(
    clusters=6, clusterings=2, background_neighbours=20, instance_epochs=0, temperature=0.3
)
# a term each, beside one of the other kind where it can be
TERMS = {
    "moco": VariantConfig(0.7, 1.3, contrastive=MoCoConfig(queue_size=40, momentum=0.8)),
    "moco_v3": VariantConfig(0.7, 1.3, contrastive=MoCoV3Config(momentum=0.8)),
    "supcon": VariantConfig(0.7, 1.3, contrastive=SupConConfig()),
    "cacr": VariantConfig(0.7, 1.3, contrastive=CACRConfig()),
    "instdisc": VariantConfig(0.7, 1.3, contrastive=InstDiscConfig(temperature=0.3)),
    "instdisc-estimated": VariantConfig(0.7, 1.3, contrastive=InstDiscConfig(negatives=50, temperature=0.3)),
    "deepcluster": VariantConfig(0.7, 1.3, contrastive=DeepClusterConfig(clusters=6, pca_components=4)),
    "local_aggregation": VariantConfig(0.7, 1.3, contrastive=LOCAL_AGGREGATION),
    "loco": VariantConfig(0, 1.3, contrastive=LoCoConfig(overlap=0)),
    "rotation": VariantConfig(0.7, 1.3, contrastive=RotationConfig(), generative=ONE_SCORED),
    "pirl": VariantConfig(0.7, 1.3, contrastive=PIRLConfig(temperature=0.3), generative=ONE_SCORED),
    "pirl-sampled": VariantConfig(0, 1.3, contrastive=PIRLConfig(negatives=40, temperature=0.3)),
    "cpc": VariantConfig(0, 1.3, contrastive=CPCConfig(negatives=50)),
    "dim": VariantConfig(0, 1.3, contrastive=DIMConfig(across_views=False, blocks=(0,))),
    "demi": VariantConfig(0.7, 1.3, contrastive=DEMIConfig()),
    "amdim": VariantConfig(0, 1.3, contrastive=DIMConfig(blocks=(1, 2))),
    "cmc": VariantConfig(0.7, 1.3, contrastive=CMCConfig(temperature=0.3), generative=ONE_SCORED),
    "relative_position": VariantConfig(0, 1.3, contrastive=RelativePositionConfig()),
    # few filters: of many, moved at random, five steps make of rounding what they like
    "pixelcnn": VariantConfig(0.7, 1.3, generative=PixelCNNConfig(filters=4)),
    "permuted": VariantConfig(0.7, 1.3, generative=PermutedConfig()),
    "masked": VariantConfig(0.7, 1.3, generative=MaskedConfig()),
    "replaced": VariantConfig(0.1, 1.3, generative=ReplacedConfig()),
    "vae": VariantConfig(0.7, 1.3, generative=VAEConfig()),
    "vqvae": VariantConfig(0.7, 1.3, generative=VQVAEConfig(codebook_size=20, code_size=4)),
    "aae": VariantConfig(0.7, 1.3, generative=AAEConfig()),
    "bigan": VariantConfig(0.7, 1.3, generative=BiGANConfig()),
}
# variant, views, passes on each process
CASES = {
    "hybrid": (HYBRID, 2, 1),
    "hybrid-in-parts": (HYBRID, 2, 4),
    "three-views": (HYBRID, 3, 2),
    "generative": (VariantConfig(1, 0), 2, 1),
    "contrastive": (VariantConfig(0, 1), 2, 1),
    **{name: (variant, 3, 2) for name, variant in TERMS.items()},
}
SEVERAL = {"hybrid": HYBRID, **TERMS}
CPU = torch.device("cpu")


def config(**changes: Any) -> TrainingConfig:
    fixed = {"learning_rate": 0.02, "optimizer": "adamw", "warmup_steps": 1, "device": "cpu", "precision": "float32"}
    every = {"log_every": 1, "evaluate_every": 3, "diagnose_every": 2, "checkpoint_seconds": 0}
    return TrainingConfig(**{"steps": 6, "batch_size": 16, **fixed, **every, **changes})


def objective_of(model: GCRL, data: PretrainData, variant: VariantConfig) -> Objective:
    return build_objective(variant, model, TrainingSet(data.images, data.labels), 0)


def step(
    model: GCRL, objective: Objective, data: PretrainData, ranks: Ranks, views: int, passes: int, number: int = 0
) -> dict[str, Tensor]:
    """Losses, metrics, gradients, batch statistics, and what the objective owns, after one step on 16 images."""
    model.train()
    images = torch.arange(16 * number, 16 * (number + 1))
    mine = torch.from_numpy(data.images[images[ranks.share(16)]])
    generator = step_generator(0, number, CPU)
    drawn = draw_views(model, objective, mine, views, AUGMENTATION, generator, ranks)
    execution = replace(execution_of(model, objective, config(), CPU, ranks), passes=passes)
    found = backward(model, objective, drawn, images, generator, execution, list(model.encoder.parameters()))
    parameters = [*model.named_parameters(), *objective.named_parameters()]
    gradients = {f"gradient of {name}": p.grad for name, p in parameters if p.grad is not None}
    watched = {f"gradient of {name} on the encoder": value for name, value in found.gradients.items()}
    owned = {f"owned {name}": value for name, value in objective.state_dict().items()}
    return {**found.terms, **found.metrics, **gradients, **watched, **dict(model.named_buffers()), **owned}


def several_steps(model: GCRL, data: PretrainData, ranks: Ranks, variant: VariantConfig) -> dict[str, Tensor]:
    """The weights, and what the objective owns, after five steps."""
    objective = objective_of(model, data, variant)
    trained = [p for module in (model, objective) for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05)
    for number in range(5):
        step(model, objective, data, ranks, 2, 1, number)
        optimizer.step()
        objective.after_step(model, (number + 1) / 6)
    return {**model.state_dict(), **{f"owned {name}": value for name, value in objective.state_dict().items()}}


def written(ranks: Ranks, model: bytes, data: PretrainData, folder: Path) -> dict[str, list[Any]]:
    """The files that this process opens for writing or puts in their place in a run, and the steps that it reports."""
    files: list[tuple[str, str]] = []
    steps: list[int] = []
    ended = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not ended and (event == "os.rename" or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))):
            files.append((event, Path(os.fsdecode(arguments[event == "os.rename"])).name))

    sys.addaudithook(watch)
    build = partial(build_objective, HYBRID)
    run = Run(build, config(steps=2, processes=2), AUGMENTATION, 0, folder / "run" / "resume.pt", "key")
    train_beside_others(ranks, lambda step, metrics: steps.append(step), model, data, run)
    ended = True
    return {"files": files, "steps": steps}


def find(
    ranks: Ranks, on_metrics: OnMetrics, models: dict[str, bytes], data: dict[int, PretrainData], folder: Path
) -> None:
    """Write what this process found in every case; `models` holds one for each, `data` the images by channels."""
    for name, (variant, views, passes) in CASES.items():
        own = pickle.loads(models[name])
        images = data[own.channels]
        found = step(own, objective_of(own, images, variant), images, ranks, views, passes)
        torch.save(copy.deepcopy(found), folder / f"{name}-{ranks.rank}.pt")
    for name, variant in SEVERAL.items():
        own = pickle.loads(models[name])
        weights = several_steps(own, data[own.channels], ranks, variant)
        torch.save(weights, folder / f"weights-{name}-{ranks.rank}.pt")
    torch.save(ranks.of_leader(0.1 + ranks.rank), folder / f"clock-{ranks.rank}.pt")
    torch.save(written(ranks, models["hybrid"], data[1], folder), folder / f"written-{ranks.rank}.pt")


def refuse(ranks: Ranks, on_metrics: OnMetrics) -> None:
    """One process gives up while the other waits for it."""
    if ranks.rank == 1:
        raise ConfigError("the second process has a reason")
    ranks.gather(torch.zeros(1, 1))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with (folder / "start.pkl").open("rb") as file:
        model, data = pickle.load(file)
    endless = config(steps=1_000_000, processes=2)
    try:
        pretrain(model, data, HYBRID, endless, AUGMENTATION, 0, folder / "resume.pt", "key", lambda step, row: None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)
