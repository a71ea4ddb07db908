"""Two players in one loss: what terms with a discriminator share.

A step is one optimizer step on one loss. So both players' losses are added, each computed with the other's part held
fixed: the gradient of every parameter is that of its own player's loss alone, and the step is one of simultaneous
gradient descent, as a gradient reversal layer gives it (Ganin and Lempitsky 2015, arXiv 1409.7495), but with the
non-saturating loss for the one who is to fool the discriminator (Goodfellow et al. 2014, arXiv 1406.2661, section 3).

A discriminator takes the tensors (n, ...) of its `Inputs` and returns logits (n, 1); positive ones say real.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

Inputs = Sequence[Tensor]
NEARBY = 0.1  # of inputs whose standard deviation is about 1


def told_apart(discriminator: nn.Module, real: Inputs, fake: Inputs) -> Tensor:
    """The discriminator's loss, −log σ(real) − log(1 − σ(fake)) in nats (n,), with a gradient for nothing else."""
    says_real, says_fake = (discriminator(*(given.detach() for given in inputs)).float() for inputs in (real, fake))
    return (F.softplus(-says_real) + F.softplus(says_fake)).squeeze(-1)


def fooled(discriminator: nn.Module, fake: Inputs) -> Tensor:
    """The other player's loss, −log σ(fake) in nats (n,), with a gradient for nothing of the discriminator."""
    return F.softplus(-_fixed(discriminator, fake)).squeeze(-1)


def found_out(discriminator: nn.Module, real: Inputs) -> Tensor:
    """The same where the real inputs are the other player's work, too: −log(1 − σ(real))."""
    return F.softplus(_fixed(discriminator, real)).squeeze(-1)


def squared_slope(discriminator: nn.Module, real: Inputs, fake: Inputs, place: Tensor, step: Inputs) -> Tensor:
    """An estimate (n,) of the discriminator's squared gradient norm at points on the lines from real to fake inputs,
    with a gradient for it alone: a penalty that keeps it from being sure of both while others have yet to learn
    (Thanh-Tung, Tran and Venkatesh 2019, arXiv 1902.03984, section 5).

    ‖∇D‖² is the mean of (noise · ∇D)². By finite differences, so that there is no second derivative (Lin et al. 2025,
    arXiv 2501.08316, section 3.3).

    Args:
        place (n,), step (like the inputs): standard normal noise; where on the line, and in which direction.
    """
    share = torch.special.ndtr(place)  # even between 0 and 1
    pairs = [(r.detach(), f.detach(), share.view(-1, *[1] * (r.ndim - 1))) for r, f in zip(real, fake, strict=True)]
    between = [r + at * (f - r) for r, f, at in pairs]
    nearby = [b + NEARBY * noise.view_as(b) for b, noise in zip(between, step, strict=True)]
    return ((discriminator(*nearby) - discriminator(*between)) / NEARBY).square().squeeze(-1)


def _fixed(module: nn.Module, inputs: Inputs) -> Tensor:
    """What a module puts out, float32, with a gradient for its inputs and none for its parameters."""
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
    logits: Tensor = functional_call(module, parameters, tuple(inputs))
    return logits.float()
