"""A variant: which objective terms, at which weights. No tensor library is imported here."""

from dataclasses import dataclass, field
from typing import Annotated

from components.dataclass_reader import ByName
from components.model.config import PretrainedConfig
from components.objectives.contrastive.nt_xent import NTXentConfig
from components.objectives.generative.autoregressive import AutoregressiveConfig
from components.objectives.registry import CONTRASTIVE, GENERATIVE
from components.objectives.settings import ContrastiveSettings, GenerativeSettings, Task, TermSettings

ANY_CONTRASTIVE = ByName(CONTRASTIVE, default=NTXentConfig)
ANY_GENERATIVE = ByName(GENERATIVE, default=AutoregressiveConfig)


@dataclass(frozen=True)
class VariantConfig:
    """`loss = w_gen · generative + w_con · contrastive`; a weight of 0 leaves a term and its part of the model out."""

    w_gen: float
    w_con: float
    contrastive: Annotated[ContrastiveSettings, ANY_CONTRASTIVE] = field(default_factory=NTXentConfig)
    generative: Annotated[GenerativeSettings, ANY_GENERATIVE] = field(default_factory=AutoregressiveConfig)
    encoder: PretrainedConfig | None = None  # whose features are taken, unchanged; a likelihood has its own stack

    def __post_init__(self) -> None:
        if self.w_gen < 0 or self.w_con < 0:
            raise ValueError("w_gen and w_con must not be negative")
        if self.encoder is not None:
            if self.w_con:
                raise ValueError("a pretrained encoder stays as it is and learns from no contrast: set w_con to 0")
            if self.w_gen and not self.generative.exact:
                raise ValueError(
                    f"{self.generative.name} trains an encoder, and a pretrained one stays as it is: choose a "
                    "generative term with an exact likelihood, such as autoregressive"
                )
            return
        if self.w_gen == 0 and self.w_con == 0:
            raise ValueError("w_gen and w_con are both 0: the variant has nothing to learn from")
        if self.w_gen and self.w_con:
            term, scored = self.contrastive, self.generative.scored_views
            if term.alone:
                raise ValueError(f"{term.name} {term.alone}: set w_gen to 0")
            if term.unaltered is not None and term.unaltered < scored:
                raise ValueError(
                    f"{term.name} alters all but {term.unaltered} of an image's views, and {scored} are to be scored: "
                    f"set generative.scored_views to {term.unaltered}"
                )

    def check(self, task: Task) -> None:
        """Raises ValueError, "KEY: why and what to do.", where a term of it cannot be trained on this, or its encoder
        cannot see it."""
        if self.encoder is not None:
            if task.likelihood == "palette":
                raise ValueError(
                    "encoder: a pretrained encoder sees whole colours, which a palette does not keep. Set "
                    "model.likelihood to logistic_mixture or categorical."
                )
            if self.encoder.image_size is not None and self.encoder.image_size < task.image_size:
                raise ValueError(
                    f"encoder.image_size: {self.encoder.image_size} is below data.image_size ({task.image_size}). "
                    "Lower data.image_size instead."
                )
        for term in self.terms:
            try:
                term.check(task)
            except ValueError as error:
                raise ValueError(f"{term.section}.{error}") from error

    @property
    def terms(self) -> tuple[TermSettings, ...]:
        """Its terms: one or two."""
        return (self.generative,) * bool(self.w_gen) + (self.contrastive,) * bool(self.w_con)

    @property
    def likelihood(self) -> bool:
        """Whether the trained model gives an exact likelihood; otherwise it has no decoder."""
        return self.w_gen > 0 and self.generative.exact

    @property
    def trains(self) -> bool:
        """Whether there is anything to train: not in a pretrained encoder alone."""
        return self.w_gen > 0 or self.w_con > 0

    @property
    def kind(self) -> str:
        """What it learns by: `hybrid` of two terms, else its only term's kind, such as contrastive or generative;
        `pretrained` with such an encoder."""
        if self.encoder is not None:
            return "pretrained"
        if self.w_gen and self.w_con:
            return "hybrid"
        return self.contrastive.kind if self.w_con else self.generative.kind

    @property
    def projects(self) -> bool:
        """Whether the contrastive term reads projections; otherwise the model has no projection head."""
        return self.w_con > 0 and self.contrastive.projects

    @property
    def own_views(self) -> int | None:
        """How many views of an image a step draws; None: as many as the training's configuration says."""
        return self.contrastive.views if self.w_con else self.generative.scored_views
