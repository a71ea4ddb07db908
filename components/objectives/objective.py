"""The terms by name, and the objective that a variant makes of two of them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from components.model.gcrl import GCRL
from components.objectives.adversarial.aae.term import AAE
from components.objectives.adversarial.bigan.term import BiGAN
from components.objectives.base import Batch, ContrastiveTerm, GenerativeTerm, Loss, TrainingSet, features
from components.objectives.clustering.deepcluster.term import DeepCluster
from components.objectives.clustering.local_aggregation.term import LocalAggregation
from components.objectives.config import VariantConfig
from components.objectives.contrastive.cacr.term import CACR
from components.objectives.contrastive.cmc.term import CMC
from components.objectives.contrastive.cpc.term import CPC
from components.objectives.contrastive.demi.term import DEMI
from components.objectives.contrastive.dim.term import DIM
from components.objectives.contrastive.instdisc.term import InstDisc
from components.objectives.contrastive.loco.term import LoCo
from components.objectives.contrastive.moco.term import MoCo
from components.objectives.contrastive.moco_v3.term import MoCoV3
from components.objectives.contrastive.nt_xent.term import NTXent
from components.objectives.contrastive.pirl.term import PIRL
from components.objectives.contrastive.supcon.term import SupCon
from components.objectives.generative.autoregressive.term import Autoregressive
from components.objectives.generative.masked.term import Masked
from components.objectives.generative.permuted.term import Permuted
from components.objectives.generative.replaced.term import Replaced
from components.objectives.generative.vae.term import VAE
from components.objectives.generative.vqvae.term import VQVAE
from components.objectives.predictive.relative_position.term import RelativePosition
from components.objectives.predictive.rotation.term import Rotation

CONTRASTIVE: dict[str, Callable[..., ContrastiveTerm]] = {
    "nt_xent": NTXent,
    "moco": MoCo,
    "moco_v3": MoCoV3,
    "supcon": SupCon,
    "cacr": CACR,
    "instdisc": InstDisc,
    "loco": LoCo,
    "deepcluster": DeepCluster,
    "local_aggregation": LocalAggregation,
    "rotation": Rotation,
    "pirl": PIRL,
    "cpc": CPC,
    "dim": DIM,
    "demi": DEMI,
    "cmc": CMC,
    "relative_position": RelativePosition,
}
GENERATIVE: dict[str, Callable[..., GenerativeTerm]] = {
    "autoregressive": Autoregressive,
    "pixelcnn": Autoregressive,
    "permuted": Permuted,
    "masked": Masked,
    "replaced": Replaced,
    "vae": VAE,
    "vqvae": VQVAE,
    "aae": AAE,
    "bigan": BiGAN,
}


class Objective(nn.Module):
    """The weighted sum of a contrastive and a generative term, or of one of them, with all that they own.

    Args:
        views: of an image that a step draws; None: as many as the training's configuration says.
        compares: what the contrastive term is called in what is logged.
    """

    def __init__(
        self,
        contrastive: ContrastiveTerm | None,
        generative: GenerativeTerm | None,
        w_con: float = 1.0,
        w_gen: float = 1.0,
        views: int | None = None,
        compares: str = "contrastive",
    ) -> None:
        super().__init__()
        self.contrastive, self.generative = contrastive, generative
        self.w_con, self.w_gen = w_con, w_gen
        self.own_views, self.compares = views, compares

    def views(self, training: int) -> int:
        """How many views of an image a step draws, where the training's configuration says `training`."""
        return self.own_views or training

    @property
    def scored_views(self) -> int:
        """How many of them the generative term scores."""
        return 0 if self.generative is None else self.generative.config.scored_views

    def contrast(self, batch: Batch) -> Loss:
        """The weighted contrastive loss of a whole batch, and its metrics (the unweighted loss included)."""
        assert self.contrastive is not None
        loss, metrics = self.contrastive(batch)
        return self.w_con * loss, {f"{self.compares}_loss": loss.detach(), **metrics}

    def generate(self, values: Tensor) -> Loss:
        """The weighted generative loss of what `represent` gave for some views, and its metrics."""
        assert self.generative is not None
        loss, metrics = self.generative(values)
        if not self.generative.config.exact:  # another loss has no unit that it shares with others
            metrics = {"generative_loss": loss.detach(), **metrics}
        return self.w_gen * loss, metrics

    def draw(self, views: int, images: int, generator: torch.Generator) -> Tensor | None:
        """What the generative term draws for each scored view of a batch (views, images, ...)."""
        return None if self.generative is None else self.generative.draw(views, images, generator)

    def represent(
        self, model: GCRL, tokens: Tensor, condition: Tensor, drawn: Tensor | None, scored: int
    ) -> tuple[Tensor, Tensor | None]:
        """What the contrastive term reads of views (n, ...), nothing (0,) where there is none, and what the generative
        one reduces, if there is one."""
        if self.generative is None:
            return self.encode(model, tokens), None
        if self.contrastive is None:
            return tokens.new_empty(0), self.generative.values(model, tokens[:scored], condition, drawn)
        return self.generative.represent(model, tokens, condition, drawn, scored)

    def encode(self, model: GCRL, tokens: Tensor) -> Tensor:
        """What the contrastive term reads of views (n, T, S, ...): their features (n, D), or more."""
        return features(model, tokens) if self.contrastive is None else self.contrastive.represent(model, tokens)

    def after_step(self, model: GCRL, progress: float) -> None:
        """See ContrastiveTerm."""
        if self.contrastive is not None:
            self.contrastive.after_step(model, progress)


def build_objective(variant: VariantConfig, model: GCRL, data: TrainingSet, seed: int) -> Objective:
    """The objective of a variant on the model's device; the same seed gives the same first weights and banks.

    Raises:
        ConfigError: a term cannot be had of this training set.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 2**32)  # no run's seed: a model's weights are others
        contrastive, generative = variant.contrastive, variant.generative
        contrasts = CONTRASTIVE[contrastive.name](contrastive, model, data) if variant.w_con else None
        generates = GENERATIVE[generative.name](generative, model, data) if variant.w_gen else None
        objective = Objective(contrasts, generates, variant.w_con, variant.w_gen, variant.own_views)
    return objective.to(model.start.device)
