"""Replaced-token detection: ELECTRA (Clark et al. 2020, arXiv 2003.10555, section 2), on patches.

A small masked model, the generator, draws masked patches anew from what it makes of the visible ones. The encoder sees
the result, and a discriminator on it tells of every patch whether it is the original; one that was drawn as it was
counts as original. The loss is the generator's own plus `discriminator_weight` (the paper's λ) times the binary
cross-entropy over all patches. No gradient passes through the drawing: the generator is not trained to deceive.

The generator is a quarter as wide as the encoder, its local head included, with as many layers: where it is too good,
there is little to detect (section 3.2). What we changed: patches in place of tokens, half of them masked in place of
15 %, and no embedding is shared between the two.
"""

from dataclasses import replace
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.model.config import ModelConfig
from components.model.gcrl import GCRL
from components.model.sampling import sample_patches
from components.objectives.base import GenerativeTerm, Loss, TrainingSet
from components.objectives.generative.masked import MaskedConfig
from components.objectives.generative.masked.term import Masked
from components.objectives.generative.replaced import ReplacedConfig


class Replaced(GenerativeTerm[ReplacedConfig]):
    """Owns the generator, with all that a masked term owns, and the discriminator's head.

    The features are those of the view as it is: beside a contrastive term the views pass the encoder twice.
    """

    def __init__(self, config: ReplacedConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        self.generator = GCRL(
            quarter(model.config),
            model.image_size,
            torch.zeros(model.colours, model.channels, dtype=torch.uint8),  # it is given tokens
            generative=False,
            contrastive=False,
            bidirectional=True,
        )
        self.masked = Masked(MaskedConfig(mask_ratio=config.mask_ratio), self.generator, data)
        D = model.config.width
        self.discriminator = nn.Sequential(nn.Linear(D, D), nn.GELU(), nn.Linear(D, 1))

    def draw(self, views: int, images: int, generator: torch.Generator) -> Tensor:
        """Uniform numbers (views, images, T + m·S·C): those whose order says which patches are masked, and one for each
        token of the m that are."""
        numbers = self.masked.patches + self.masked.count * prod(self.masked.head.shape)
        return torch.rand(views, images, numbers, generator=generator, device=generator.device)

    def values(self, model: GCRL, tokens: Tensor, condition: Tensor, drawn: Tensor | None) -> Tensor:
        """For each view, means (n, 4): the generator's NLL, the discriminator's loss, how often it is right, and the
        share of patches that were replaced."""
        assert drawn is not None
        patches, head = self.masked.patches, self.masked.head
        masked = drawn[:, :patches].argsort(-1)[:, : self.masked.count]  # (n, m)
        image = torch.arange(len(tokens), device=tokens.device)[:, None]
        contexts = self.masked.contexts(self.generator, tokens, masked)[image, masked]  # (n, m, D/4)
        nll = head.nll(contexts, tokens[image, masked])  # (n, m, S)
        corrupted = tokens.clone()
        uniform = drawn[:, patches:].unflatten(1, (self.masked.count, -1))  # (n, m, S·C)
        corrupted[image, masked] = sample_patches(head, contexts, uniform)
        replaced = (corrupted != tokens).flatten(2).any(2)  # (n, T)
        logits = self.discriminator(model.norm(model.encode(corrupted))[:, 1:]).squeeze(-1).float()
        detection = F.binary_cross_entropy_with_logits(logits, replaced.float(), reduction="none")
        right = (logits > 0) == replaced
        return torch.stack([nll.mean((1, 2)), *(x.float().mean(1) for x in (detection, right, replaced))], 1)

    def forward(self, values: Tensor) -> Loss:
        nll, detection, right, replaced = values.mean(0)
        return nll + self.config.discriminator_weight * detection, {
            "generator_nll_nats_per_token": nll.detach(),
            "detection_loss": detection.detach(),
            "detection_accuracy": right.detach(),
            "replaced_share": replaced.detach(),
        }


def quarter(config: ModelConfig) -> ModelConfig:
    """The shape of the generator: heads of about the same width, a quarter of them."""
    heads = max(1, config.heads // 4)
    local_width = max(1, config.local_width // 4)
    return replace(config, width=max(1, config.width // 4 // heads) * heads, heads=heads, local_width=local_width)
