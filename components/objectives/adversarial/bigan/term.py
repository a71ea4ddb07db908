"""The bidirectional GAN (Donahue, Krähenbühl and Darrell 2017, arXiv 1605.09782, equation 3), or ALI
(Dumoulin et al. 2017, arXiv 1606.00704).

A generator makes views of codes drawn from a standard normal distribution, the encoder makes codes of views. A
discriminator of pairs tells (view, its code) from (generated view, its code); it is fooled best where encoder and
generator are each other's inverse. Nothing is reconstructed on the way.

What we changed: encoder, generator and discriminator are transformers, and all move at once; the discriminator's slope
is penalised (components/objectives/parts/game.py). All share the run's optimizer (Muon, or AdamW with β₁ = 0.9), one
rate, weight decay, and one norm by which their gradients are clipped; the papers take Adam with β₁ = 0.5.
"""

import torch
from torch import Tensor, nn

from components.model.gcrl import GCRL
from components.model.transformer import Stack
from components.objectives.adversarial.bigan import BiGANConfig
from components.objectives.base import GenerativeTerm, Loss, TrainingSet, features
from components.objectives.parts.game import fooled, found_out, squared_slope, told_apart


class BiGAN(GenerativeTerm[BiGANConfig]):
    """Both players' losses. Owns the map from features to codes, the generator, and the discriminator."""

    def __init__(self, config: BiGANConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        self.pixels = model.patches * model.config.patch_size**2 * model.channels  # numbers of a view
        self.code = nn.Linear(model.config.width, config.latent_size)
        self.generator = Generator(model, config)
        self.discriminator = Discriminator(model, config)

    def draw(self, views: int, images: int, generator: torch.Generator) -> Tensor:
        """Standard normal noise (views, images, 2 · Z + 1 + T · P): codes, and what the penalty needs."""
        length = 2 * self.config.latent_size + 1 + self.pixels
        return torch.randn(views, images, length, generator=generator, device=generator.device)

    def represent(
        self, model: GCRL, tokens: Tensor, condition: Tensor, drawn: Tensor | None, scored: int
    ) -> tuple[Tensor, Tensor]:
        """Features (n, D); both players' losses, and the discriminator's squared slope (scored, 3)."""
        assert drawn is not None
        found = features(model, tokens)
        prior, place, *step = drawn.split([self.config.latent_size, 1, self.pixels, self.config.latent_size], 1)
        real = scaled_pixels(model, tokens[:scored]), self.code(found[:scored]).float()
        fake = self.generator(prior).float(), prior
        discriminator = told_apart(self.discriminator, real, fake)
        fooling = found_out(self.discriminator, real) + fooled(self.discriminator, fake)
        with torch.autocast(tokens.device.type, enabled=False):  # a slope is a difference of near numbers
            slope = squared_slope(self.discriminator, real, fake, place, step)
        return found, torch.stack([discriminator, fooling, slope], 1)

    def forward(self, values: Tensor) -> Loss:
        discriminator, fooling, slope = values.mean(0)
        return discriminator + self.config.gradient_penalty * slope + fooling, {
            "discriminator_loss": discriminator.detach(),
            "fooling_loss": fooling.detach(),
        }


def scaled_pixels(model: GCRL, tokens: Tensor) -> Tensor:
    """Pixels (n, T, P) between −1 and 1 of tokens (n, T, S, ...)."""
    return 2 * model.tokenizer.dequantise(tokens).flatten(2) - 1


class Generator(nn.Module):
    """Pixels (n, T, P) between −1 and 1 of codes (n, Z)."""

    def __init__(self, model: GCRL, config: BiGANConfig) -> None:
        super().__init__()
        D = model.config.width
        self.code = nn.Linear(config.latent_size, model.patches * D)
        self.position = nn.Parameter(torch.randn(model.patches, D) * 0.02)
        self.stack = Stack(D, model.config.heads, config.generator_layers, causal=False)
        self.norm = nn.LayerNorm(D)
        self.pixels = nn.Linear(D, model.config.patch_size**2 * model.channels)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.code(codes).unflatten(1, self.position.shape)  # (n, T, D)
        return self.pixels(self.norm(self.stack(x + self.position.to(x.dtype)))).tanh()


class Discriminator(nn.Module):
    """How real (n, 1) pairs of pixels (n, T, P) and codes (n, Z) look: the logit of a transformer that reads both."""

    def __init__(self, model: GCRL, config: BiGANConfig) -> None:
        super().__init__()
        D = model.config.width
        self.code = nn.Linear(config.latent_size, D)
        self.patch = nn.Linear(model.config.patch_size**2 * model.channels, D)
        self.position = nn.Parameter(torch.randn(model.patches + 1, D) * 0.02)
        self.stack = Stack(D, model.config.heads, config.discriminator_layers, causal=False)
        self.norm = nn.LayerNorm(D)
        self.logit = nn.Linear(D, 1)

    def forward(self, pixels: Tensor, codes: Tensor) -> Tensor:
        x = torch.cat([self.code(codes)[:, None], self.patch(pixels)], 1)  # (n, T + 1, D)
        return self.logit(self.norm(self.stack(x + self.position.to(x.dtype)))[:, 0])
