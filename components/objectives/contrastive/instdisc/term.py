"""InstDisc: instance discrimination with a memory bank (Wu et al. 2018, arXiv 1805.01978, equations 2 and 4 to 8).

What we changed: the noise images of a step are the same for all its views, which leaves the loss's expectation as it
is and costs a matrix product instead of a gather for each view. The bank takes the mean of an image's views. There is
no proximal regularisation (equation 9); the authors' code has none either.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from components.model.gcrl import GCRL
from components.objectives.base import Batch, ContrastiveTerm, Loss, TrainingSet, projection_shape, view_accuracy
from components.objectives.contrastive.instdisc import InstDiscConfig
from components.objectives.parts.bank import MemoryBank, random_directions


class InstDisc(ContrastiveTerm[InstDiscConfig]):
    """Every image is a class, whose weight vector is what the bank remembers of it.

    Owns the bank, one vector an image of the training set, at first random; and, where the softmax over all images is
    replaced by noise-contrastive estimation, its normalising constant Z, which is estimated on the first batch.
    """

    def __init__(self, config: InstDiscConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        self.bank = MemoryBank(random_directions(len(data.images), projection_shape(model)[1]), config.momentum)
        if config.negatives is not None:
            self.register_buffer("log_z", torch.tensor(math.nan))  # not estimated yet
        self.log_z: Tensor

    def forward(self, batch: Batch) -> Loss:
        z = batch.projections
        if self.config.negatives is None:
            loss = instance_softmax(z, self.bank.rows, batch.images, self.config.temperature)
        else:
            loss = self._estimated(z, self.bank.rows[batch.images], self.config.negatives, batch.generator)
        self.bank.remember(batch.images, z.float().mean(0))
        return loss, {"contrastive_accuracy": view_accuracy(z)}

    def after_step(self, model: GCRL, progress: float) -> None:
        self.bank.after_step()

    def _estimated(self, z: Tensor, own: Tensor, negatives: int, generator: torch.Generator) -> Tensor:
        size = len(self.bank.rows)
        noise = self.bank.rows[torch.randint(size, (negatives,), generator=generator, device=z.device)]
        with torch.no_grad():
            self.log_z.copy_(torch.where(self.log_z.isnan(), self._log_z(z, own, noise), self.log_z))
        return nce(z, own, noise, self.config.temperature, self.log_z, size)

    def _log_z(self, z: Tensor, own: Tensor, noise: Tensor) -> Tensor:
        """log N + log of the mean of exp(v·f/τ) over the batch's pairs (equation 8)."""
        products = torch.cat([(z * own).sum(-1)[..., None], z @ noise.T], -1) / self.config.temperature
        return products.flatten().logsumexp(0) - math.log(products.numel()) + math.log(len(self.bank.rows))


def instance_softmax(projections: Tensor, bank: Tensor, images: Tensor, temperature: float) -> Tensor:
    """Mean over views f of image i of −log exp(v_i·f/τ) / Σ_j exp(v_j·f/τ) (equation 2); float32 scalar.

    Args:
        projections: f, L2-normalised (V, B, P).
        bank: v, what is remembered of each image of the training set (N, P).
        images: their indices (B,).
        temperature: τ > 0.
    """
    logits = projections.float().flatten(0, 1) @ bank.T / temperature  # (V·B, N)
    return F.cross_entropy(logits, images.repeat(len(projections)))


def nce(projections: Tensor, own: Tensor, noise: Tensor, temperature: float, log_z: Tensor, images: int) -> Tensor:
    """Mean over views of −log h(i, f) − Σ_noise log(1 − h(j, f)), with h = P / (P + M/N) and P(i, f) = exp(v_i·f/τ) / Z
    (equations 4 to 7); float32 scalar.

    Args:
        projections: f, L2-normalised (V, B, P).
        own: v_i, what is remembered of each image (B, P).
        noise: v_j, of M images drawn uniformly (M, P).
        temperature: τ > 0.
        log_z: log Z, a scalar.
        images: N, of the training set.
    """
    f = projections.float()
    offset = log_z + math.log(len(noise) / images)
    data_odds = (f * own).sum(-1) / temperature - offset  # (V, B), the log-odds of data against noise
    noise_odds = f @ noise.T / temperature - offset  # (V, B, M)
    return (F.softplus(-data_odds) + F.softplus(noise_odds).sum(-1)).mean()
