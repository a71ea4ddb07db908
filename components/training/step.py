"""The gradient of one step's loss, exact however many passes and processes the batch is spread over.

The likelihood's loss is a mean over views: parts of a batch can be computed one after the other, or side by side. The
contrastive loss compares every view with every other, and the projection head normalises over all of them, so neither
can be computed in parts. Both need the features alone, which are small. So, with gradient caching (Gao et al. 2021,
arXiv 2101.06983):

1. the features of all views are computed and gathered from all processes;
2. every process computes projections and contrastive loss of the whole batch, and the loss's slope at each feature;
3. each part is passed through the model again, now keeping what a backward pass needs, which starts from the slopes of
   its own features and from its likelihood.

Where the batch is one part, the first pass keeps its graph and there is no second. No gradient ever passes through a
gather, so that none is multiplied or divided by the number of processes on its way.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from components.model.gcrl import GCRL
from components.objectives.config import VariantConfig
from components.objectives.terms import contrastive_loss, generative_loss
from components.training.diagnostics import flat_gradient
from components.training.ranks import Ranks
from components.training.views import Views


@dataclass(frozen=True)
class Execution:
    """How a step is computed. `represent` is the model's method, `encode` its features alone, compiled or not."""

    represent: Callable[..., tuple[Tensor, Tensor | None]]
    encode: Callable[[Tensor], Tensor]
    dtype: torch.dtype = torch.float32  # under autocast, where it is another
    passes: int = 1
    ranks: Ranks = field(default_factory=Ranks)

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """What every forward pass runs in."""
        return torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32)


@dataclass(frozen=True)
class Found:
    """What is known of a step besides the gradient; the same on every process."""

    terms: dict[str, Tensor]  # the weighted loss of each term
    metrics: dict[str, Tensor]
    gradients: dict[str, Tensor]  # each term's gradient on the watched parameters, as one vector


def backward(
    model: GCRL, views: Views, variant: VariantConfig, execution: Execution, watched: Sequence[Tensor] = ()
) -> Found:
    """Set every parameter's gradient to that of the loss over all views of all processes."""
    parts, ranks = views.split(execution.passes), execution.ranks
    found = Found({}, {}, {})
    model.zero_grad(set_to_none=True)
    passed = pass_through(parts[0], execution) if len(parts) == 1 else None
    slopes: Sequence[Tensor | None] = [None] * len(parts)
    if variant.w_con:
        features = passed[0].unflatten(0, views.tokens.shape[:2]) if passed else _features(parts, execution)
        slopes = _contrast(model, features, variant, execution, found).chunk(len(parts), 1)
    for part, slope in zip(parts, slopes, strict=True):
        part_features, nll = passed or pass_through(part, execution)
        losses = {}
        if nll is not None:
            loss, metrics = generative_loss(nll, variant)
            losses["generative"] = loss / len(parts)
            _add(found.terms, {"generative": losses["generative"].detach()})
            _add(found.metrics, {name: value / len(parts) for name, value in metrics.items()})
        if slope is not None:  # processes are averaged below, and each has the slopes of its own features alone
            losses["contrastive"] = ranks.size * (part_features * slope.flatten(0, 1)).sum()
        if watched:
            _add(found.gradients, {name: flat_gradient(loss, watched) for name, loss in losses.items()})
        torch.stack(list(losses.values())).sum().backward()
    parameters = [p.grad for p in model.parameters() if p.grad is not None]
    ranks.average_([*parameters, *found.terms.values(), *found.metrics.values(), *found.gradients.values()])
    return found


def pass_through(part: Views, execution: Execution) -> tuple[Tensor, Tensor | None]:
    """Features (V·b, D) and, where there is a decoder, the likelihood (L·b, T, S) of the first L views."""
    tokens, condition = part.tokens.flatten(0, 1), part.condition.flatten(0, 1)
    scored = None if part.scored is None else part.scored.flatten(0, 1)
    with execution.autocast(tokens.device):
        return execution.represent(tokens, condition, scored, len(condition))


@torch.no_grad()
def _features(parts: Sequence[Views], execution: Execution) -> Tensor:
    """Features (V, b, D) of all parts."""
    with execution.autocast(parts[0].tokens.device):
        features = [execution.encode(part.tokens.flatten(0, 1)) for part in parts]
    return torch.cat([f.unflatten(0, p.tokens.shape[:2]) for f, p in zip(features, parts, strict=True)], 1)


def _contrast(model: GCRL, features: Tensor, variant: VariantConfig, execution: Execution, found: Found) -> Tensor:
    """The slope of the contrastive loss at these features (V, b, D), which are contrasted with all processes' features.
    Leaves the projection head's gradient in place: every process computes the same one."""
    everyone = execution.ranks.gather(features).requires_grad_()  # (V, B, D)
    with execution.autocast(features.device):
        projections = model.project(everyone.flatten(0, 1))
    loss, metrics = contrastive_loss(projections.unflatten(0, everyone.shape[:2]), variant)
    loss.backward()
    found.terms["contrastive"] = loss.detach()
    found.metrics.update(metrics)
    assert everyone.grad is not None
    return everyone.grad[:, execution.ranks.share(everyone.shape[1])]


def _add(to: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        to[name] = to[name] + value if name in to else value
