"""The adversarial autoencoder (Makhzani et al. 2016, arXiv 1511.05644, section 2).

A code explains the view, and a discriminator that tells codes from draws of the prior, a standard normal distribution,
is to be fooled by them. The code is a function of the features, which the paper calls deterministic.

What we changed: all players move at once instead of in turns, the discriminator's slope is penalised
(components/objectives/parts/game.py), and the decoder's pixels in a patch are not independent. All share the run's
optimizer (Muon, or AdamW with β₁ = 0.9), one rate, weight decay, and one norm by which their gradients are clipped; the
paper takes stochastic gradient descent, in two phases.
"""

import torch
from torch import Tensor, nn

from components.model.gcrl import GCRL
from components.objectives.adversarial.aae import AAEConfig
from components.objectives.base import GenerativeTerm, Loss, TrainingSet, features
from components.objectives.parts.code_decoder import CodeDecoder
from components.objectives.parts.game import fooled, squared_slope, told_apart


class AAE(GenerativeTerm[AAEConfig]):
    """Reconstruction in nats a token, and the adversarial losses. Owns the map from features to codes, the decoder, and
    the discriminator."""

    def __init__(self, config: AAEConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        width = model.config.width
        self.code = nn.Linear(width, config.latent_size)
        self.decoder = CodeDecoder(model, config.latent_size, config.decoder_layers)
        self.discriminator = nn.Sequential(
            nn.Linear(config.latent_size, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Linear(2 * width, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Linear(2 * width, 1),
        )

    def draw(self, views: int, images: int, generator: torch.Generator) -> Tensor:
        """Standard normal noise (views, images, 1 + 2 · Z): draws of the prior, and what the penalty needs."""
        return torch.randn(views, images, 1 + 2 * self.config.latent_size, generator=generator, device=generator.device)

    def represent(
        self, model: GCRL, tokens: Tensor, condition: Tensor, drawn: Tensor | None, scored: int
    ) -> tuple[Tensor, Tensor]:
        """Features (n, D); reconstruction, both players' losses, and the discriminator's squared slope (scored, 4)."""
        assert drawn is not None
        found, tokens = features(model, tokens), tokens[:scored]
        place, prior, step = drawn.split([1, self.config.latent_size, self.config.latent_size], 1)
        with torch.autocast(tokens.device.type, enabled=False):  # a slope is a difference of near numbers
            code = self.code(found[:scored].float())
            game = [
                told_apart(self.discriminator, [prior], [code]),
                fooled(self.discriminator, [code]),
                squared_slope(self.discriminator, [prior], [code], place, [step]),
            ]
        reconstruction = self.decoder.nll(code, tokens).mean((1, 2))
        return found, torch.stack([reconstruction, *game], 1)

    def forward(self, values: Tensor) -> Loss:
        reconstruction, discriminator, fooling, slope = values.mean(0)
        game = discriminator + self.config.gradient_penalty * slope + fooling
        return reconstruction + self.config.adversarial_weight * game, {
            "reconstruction_nats_per_token": reconstruction.detach(),
            "discriminator_loss": discriminator.detach(),
            "fooling_loss": fooling.detach(),
        }
