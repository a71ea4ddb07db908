"""What tells a healthy run from a collapsing or a self-contradicting one."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def flat_gradient(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The gradient of a loss on parameters as one float32 vector; zeros where the loss does not touch one."""
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).float().flatten() for g, p in pairs])


def gradient_conflict(gradients: dict[str, Tensor]) -> dict[str, float]:
    """Norm of each term's gradient on the shared parameters, and the cosine between the two where there are two.

    A negative cosine means that a step down one loss is a step up the other (Layer Grafting, Jiang et al. 2023).
    """
    metrics = {f"gradient_norm/{name}": float(g.norm()) for name, g in gradients.items()}
    if len(gradients) == 2:
        a, b = gradients.values()
        metrics["gradient_cosine"] = float(F.cosine_similarity(a, b, dim=0))
    return metrics


def feature_health(features: Tensor) -> dict[str, float]:
    """Collapse indicators of features (N, D): mean std of the unit-length features × √D (about 1 when spread evenly
    over the sphere, 0 when collapsed), and the effective rank exp(entropy of the normalised singular values) (Roy and
    Vetterli 2007)."""
    x = features.double()
    spread = F.normalize(x, dim=1).std(0).mean() * x.shape[1] ** 0.5
    singular = torch.linalg.svdvals(x - x.mean(0))
    share = singular / singular.sum().clamp_min(1e-12)
    rank = torch.exp(-(share * share.clamp_min(1e-12).log()).sum())
    return {"feature_std": float(spread), "effective_rank": float(rank)}


def knn_accuracy(bank: Tensor, bank_labels: Tensor, queries: Tensor, labels: Tensor, k: int = 10) -> float:
    """Share of queries (M, D) whose k nearest bank features (N, D) by cosine vote for their label.

    Where classes tie, the lowest wins.
    """
    similarity = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T  # (M, N)
    nearest = bank_labels[similarity.topk(min(k, len(bank)), dim=1).indices]  # (M, k)
    votes = F.one_hot(nearest, int(bank_labels.max()) + 1).sum(1)
    return float((votes.argmax(1) == labels).float().mean())
