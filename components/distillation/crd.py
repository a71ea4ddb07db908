"""Contrastive representation distillation (CRD; Tian, Krishnan and Isola 2020, arXiv 1910.10699).

A student's and a teacher's embedding of the same image are to be told from those of different images. The critic is
the paper's equation 19, h(T, S) = p / (p + N/M) with p = exp(g_T(T)·g_S(S) / τ) / Z; M is the number of images. As in
the authors' code (github.com/HobbitLong/RepDistiller, crd/), each embedding is compared with the other network's
*buffered* ones, so that N may be far larger than a batch; a buffer is a moving average of normalised embeddings, by
image; and Z is M times the mean of exp(·/τ) over the first batch, for each direction, and stays.

What differs: negatives are drawn among all other images instead of those of other classes, for the set need not be
labelled; and the loss is computed from logarithms, which needs no ε against overflow.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.distillation.config import CrdConfig
from components.objectives.parts.bank import MemoryBank


class Crd(nn.Module):
    """Both embeddings (linear, then normalised), both buffers, and the logarithms of both constants Z.

    Args:
        student, teacher: lengths of their features.
        images: M, the size of the training set.
    """

    log_z: Tensor  # (2,), of the student and the teacher as anchor; NaN before the first batch

    def __init__(self, student: int, teacher: int, images: int, config: CrdConfig) -> None:
        super().__init__()
        self.config = config
        self.negatives = usable_negatives(config, images)
        self.student = nn.Linear(student, config.embedding_size)
        self.teacher = nn.Linear(teacher, config.embedding_size)
        bound = math.sqrt(3 / config.embedding_size)  # of unit length, about
        self.student_buffer, self.teacher_buffer = (
            MemoryBank(torch.empty(images, config.embedding_size).uniform_(-bound, bound), config.momentum)
            for _ in range(2)
        )
        self.register_buffer("log_z", torch.full((2,), math.nan))

    def forward(self, student: Tensor, teacher: Tensor, images: Tensor, negatives: Tensor) -> Tensor:
        """The loss, a scalar: the mean over the batch, summed over positive, negatives and both directions.

        Args:
            student, teacher: features (B, D_s) and (B, D_t) of the same views.
            images: (B,) distinct numbers of the images, 0 … M − 1.
            negatives: (B, N) numbers of other images.
        """
        s, t = F.normalize(self.student(student), dim=1), F.normalize(self.teacher(teacher), dim=1)  # (B, E)
        compared = torch.cat([images[:, None], negatives], 1)  # (B, 1 + N)
        scores = torch.stack(
            [_products(s, self.teacher_buffer.rows, compared), _products(t, self.student_buffer.rows, compared)]
        )  # (2, B, 1 + N)
        self.student_buffer.remember(images, s)
        self.teacher_buffer.remember(images, t)
        return self._loss(scores / self.config.temperature)

    def _loss(self, scores: Tensor) -> Tensor:
        M, N = len(self.student_buffer.rows), scores.shape[2] - 1
        with torch.no_grad():
            estimate = scores.flatten(1).logsumexp(1) - math.log(scores[0].numel()) + math.log(M)  # (2,)
            self.log_z.copy_(torch.where(self.log_z.isnan(), estimate, self.log_z))
        log_p = scores - self.log_z[:, None, None]
        noise = math.log(N / M)
        positive = F.softplus(noise - log_p[..., 0])  # −log h
        negative = F.softplus(log_p[..., 1:] - noise).sum(2)  # −Σ log(1 − h)
        return (positive + negative).sum(0).mean()

    def after_step(self) -> None:
        """Let the buffers take in the latest batch."""
        self.student_buffer.after_step()
        self.teacher_buffer.after_step()


def _products(anchors: Tensor, buffer: Tensor, compared: Tensor) -> Tensor:
    """Inner products (B, 1 + N) of anchors (B, E) with the rows `compared` (B, 1 + N) of a buffer (M, E)."""
    if len(buffer) < compared.shape[1] * buffer.shape[1]:  # all M products take less memory than the rows themselves
        return (anchors @ buffer.T).gather(1, compared)
    return (buffer[compared] @ anchors[:, :, None]).squeeze(2)


def usable_negatives(config: CrdConfig, images: int) -> int:
    """N: the configured number, or all other images where there are fewer."""
    return min(config.negatives, images - 1)


def draw_negatives(images: Tensor, count: int, among: int, generator: torch.Generator) -> Tensor:
    """Numbers (B, count) of images 0 … among − 1, for each of `images` (B,) drawn with replacement from all others."""
    drawn = torch.randint(among - 1, (len(images), count), generator=generator, device=images.device)
    return drawn + (drawn >= images[:, None])
