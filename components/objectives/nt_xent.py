"""NT-Xent, the normalised temperature-scaled cross-entropy of SimCLR (Chen et al. 2020, arXiv 2002.05709, eq. 1)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def nt_xent(projections: Tensor, temperature: float) -> Tensor:
    """Mean over all 2B views of −log exp(z·z⁺/τ) / Σ_{a≠i} exp(z·z_a/τ), both directions; float32 scalar.

    Args:
        projections: L2-normalised (2B, P); rows i and B + i are the two views of image i.
        temperature: τ > 0.
    """
    z = projections.float()
    n = len(z)
    similarity = z @ z.T / temperature  # (2B, 2B)
    itself = torch.eye(n, dtype=torch.bool, device=z.device)
    positive = torch.arange(n, device=z.device).roll(n // 2)
    return F.cross_entropy(similarity.masked_fill(itself, float("-inf")), positive)
