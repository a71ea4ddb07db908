"""An exponential moving average of the weights: a smoother model than the last step's, for the price of a copy."""

import torch
from torch import nn


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the average towards the model after `step` finished steps (from 1).

    The decay grows with the steps, (1 + step) / (10 + step), up to `decay`: otherwise the random first weights would
    stay in the average of a short run. Buffers are copied.
    """
    now = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - now)
    for ours, theirs in zip(average.buffers(), model.buffers(), strict=True):
        ours.copy_(theirs)
