"""The variational autoencoder (Kingma and Welling 2014, arXiv 1312.6114, equations 3 and 10).

The encoder's features give a Gaussian over codes, q(z|x); a decoder explains the view by a code drawn from it. What is
maximised, log p(x|z) − KL(q(z|x) ‖ p(z)) in the mean over q, is a lower bound (ELBO) on the log-likelihood. `beta`
weighs the KL (β-VAE; Higgins et al. 2017); what is logged as a bound is the one at β = 1.

What we changed: the decoder's patches are independent given the code, but the pixels in a patch are not.
"""

import math

import torch
from torch import Tensor, nn

from components.model.gcrl import GCRL
from components.objectives.base import GenerativeTerm, Loss, TrainingSet, features
from components.objectives.generative.vae import VAEConfig
from components.objectives.parts.code_decoder import CodeDecoder


class VAE(GenerativeTerm[VAEConfig]):
    """Reconstruction + β · KL, in nats a token. Owns the map from features to codes and the decoder.

    In evaluation mode several codes are drawn for each image, for a bound that is tighter than the ELBO.
    """

    def __init__(self, config: VAEConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        self.channels = model.channels
        self.posterior = nn.Linear(model.config.width, 2 * config.latent_size)
        self.decoder = CodeDecoder(model, config.latent_size, config.decoder_layers)

    def draw(self, views: int, images: int, generator: torch.Generator) -> Tensor:
        """Standard normal noise (views, images, k, Z) for one code, or in evaluation mode for `importance_samples`."""
        codes = 1 if self.training else self.config.importance_samples
        return torch.randn(views, images, codes, self.config.latent_size, generator=generator, device=generator.device)

    def represent(
        self, model: GCRL, tokens: Tensor, condition: Tensor, drawn: Tensor | None, scored: int
    ) -> tuple[Tensor, Tensor]:
        """Features (n, D); reconstruction, KL and the bound from all codes (scored, 3) in nats a token."""
        assert drawn is not None
        found, tokens = features(model, tokens), tokens[:scored]
        mean, log_variance = self.code(found[:scored])
        each = [self.explain(mean, log_variance, tokens, noise) for noise in drawn.unbind(1)]
        nll, log_weights = (torch.stack(values) for values in zip(*each, strict=True))  # (k, scored)
        bound = math.log(len(each)) - log_weights.logsumexp(0)
        values = torch.stack([nll.mean(0), gaussian_kl(mean, log_variance), bound], 1)
        return found, values / (model.patches * model.config.patch_size**2)

    def forward(self, values: Tensor) -> Loss:
        reconstruction, kl, bound = values.mean(0)
        metrics = {"reconstruction_nats_per_token": reconstruction, "kl_nats_per_token": kl}
        bits = 1 / (math.log(2) * self.channels)
        metrics["bits_per_dim_bound"] = bits * (reconstruction + kl)
        if not self.training:
            metrics["bits_per_dim_bound_iwae"] = bits * bound
        return reconstruction + self.config.beta * kl, {name: value.detach() for name, value in metrics.items()}

    def code(self, found: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (n, Z) of q(z|x), float32, for features (n, D)."""
        with torch.autocast(found.device.type, enabled=False):
            mean, log_variance = self.posterior(found.float()).chunk(2, -1)
        return mean, log_variance

    def explain(self, mean: Tensor, log_variance: Tensor, tokens: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """With a code z of q(z|x), −log p(x|z) and log p(x, z) − log q(z|x), in nats (n,).

        The mean of the latter estimates the ELBO. The logarithm of the mean exponential of k of them is a bound, too,
        and the tighter the larger k is (IWAE; Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519, equation 8).

        Args:
            mean, log_variance, noise: (n, Z); the noise is standard normal.
            tokens: (n, T, S, ...).
        """
        z = mean + (log_variance / 2).exp() * noise
        nll = self.decoder.nll(z, tokens).sum((1, 2))
        log_ratio = (noise.square() + log_variance - z.square()).sum(-1) / 2  # log p(z) − log q(z|x): no 2π is left
        return nll, log_ratio - nll


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) ‖ N(0, 1)) in nats, summed over the last dimension (Kingma and Welling, appendix B)."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1) / 2
