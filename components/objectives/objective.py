"""The objective that a variant makes of two terms."""

import torch
from torch import Tensor, nn

from components.errors import ConfigError
from components.model.gcrl import GCRL
from components.objectives.base import Batch, ContrastiveTerm, GenerativeTerm, Loss, TrainingSet, features
from components.objectives.config import VariantConfig
from components.objectives.settings import Task


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
    task = Task(
        side=model.image_size // model.config.patch_size,
        image_size=model.image_size,
        channels=model.channels,
        likelihood=model.config.likelihood,
        encoder_layers=model.config.encoder_layers,
        images=len(data.images),
        labels=data.labels is not None and bool((data.labels >= 0).any()),
    )
    try:
        variant.check(task)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 2**32)  # no run's seed: a model's weights are others
        contrastive, generative = variant.contrastive, variant.generative
        contrasts = contrastive.term()(contrastive, model, data) if variant.w_con else None
        generates = generative.term()(generative, model, data) if variant.w_gen else None
        objective = Objective(contrasts, generates, variant.w_con, variant.w_gen, variant.own_views)
    return objective.to(model.start.device)
