"""The gradient of one step's loss, exact however many passes and processes the batch is spread over.

The likelihood's loss is a mean over views: parts of a batch can be computed one after the other, or side by side. The
contrastive loss compares every view with every other, and the projection head normalises over all of them, so neither
can be computed in parts. Both need the features alone, which are small. So, with gradient caching (Gao et al. 2021,
arXiv 2101.06983):

1. the features of all views, and whatever else the contrastive term observes of them, are computed and gathered from
   all processes;
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
from components.objectives.base import Batch
from components.objectives.objective import Objective
from components.training.diagnostics import flat_gradient
from components.training.distributed import Ranks
from components.training.views import Views


@dataclass(frozen=True)
class Execution:
    """How a step is computed. `represent` is the objective's on the model, `encode` the features alone, `observe` the
    contrastive term's; compiled or not."""

    represent: Callable[[Tensor, Tensor, Tensor | None, int], tuple[Tensor, Tensor | None]]
    encode: Callable[[Tensor], Tensor]
    observe: Callable[[Tensor], Tensor] | None = None
    dtype: torch.dtype = torch.float32  # under autocast, where it is another
    passes: int = 1
    ranks: Ranks = field(default_factory=Ranks)

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """What every forward pass runs in."""
        return torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32)


@dataclass(frozen=True)
class StepResult:
    """What is known of a step besides the gradient; the same on every process."""

    terms: dict[str, Tensor]  # the weighted loss of each term
    metrics: dict[str, Tensor]
    gradients: dict[str, Tensor]  # each term's gradient on the watched parameters, as one vector


def backward(
    model: GCRL,
    objective: Objective,
    views: Views,
    images: Tensor,
    generator: torch.Generator,
    execution: Execution,
    watched: Sequence[Tensor] = (),
) -> StepResult:
    """Set every parameter's gradient, of the model and of what the objective owns, to that of the loss over all views
    of all processes. `images` (B,) are the indices of the whole batch's images, the generator is the step's."""
    parts, ranks = views.split(execution.passes), execution.ranks
    found = StepResult({}, {}, {})
    model.zero_grad(set_to_none=True)
    objective.zero_grad(set_to_none=True)
    passed = pass_through(parts[0], execution) if len(parts) == 1 else None
    slopes: Sequence[Tensor | None] = [None] * len(parts)
    if objective.contrastive is not None:
        shape = views.tokens.shape[:2]  # (V, b)
        features = passed[0].unflatten(0, shape) if passed else _of_views(execution.encode, parts, execution)
        observed = _of_views(execution.observe, parts, execution) if execution.observe else None
        everyone = ranks.gather(features).requires_grad_()  # (V, B, ...)
        with execution.autocast(features.device):
            projections = objective.contrastive.pooled(everyone)
            if model.projection is not None:
                projections = model.project(projections.flatten(0, 1)).unflatten(0, projections.shape[:2])
        observed = None if observed is None else ranks.gather(observed)
        batch = Batch(everyone, projections, images, generator, observed)
        slopes = _contrast(objective, batch, found)[:, ranks.share(len(images))].chunk(len(parts), 1)
    for part, slope in zip(parts, slopes, strict=True):
        losses, metrics = _losses(objective, passed or pass_through(part, execution), slope, execution)
        if "generative" in losses:
            _add(found.terms, {"generative": losses["generative"].detach()})
        _add(found.metrics, metrics)
        torch.stack(list(losses.values())).sum().backward()
        for name in losses if watched else ():  # passed anew: there is one way back through a compiled pass
            again, _ = _losses(objective, pass_through(part, execution), slope, execution)
            _add(found.gradients, {name: flat_gradient(again[name], watched)})
    parameters = [p.grad for module in (model, objective) for p in module.parameters() if p.grad is not None]
    ranks.average_([*parameters, *found.terms.values(), *found.metrics.values(), *found.gradients.values()])
    return found


def pass_through(part: Views, execution: Execution) -> tuple[Tensor, Tensor | None]:
    """Features (V·b, ...) and what the generative term reduces of the first L views, where there is one."""
    tokens, condition = part.tokens.flatten(0, 1), part.condition.flatten(0, 1)
    drawn = None if part.drawn is None else part.drawn.flatten(0, 1)
    with execution.autocast(tokens.device):
        return execution.represent(tokens, condition, drawn, len(condition))


def _losses(
    objective: Objective, passed: tuple[Tensor, Tensor | None], slope: Tensor | None, execution: Execution
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a part adds to each term's loss, or what has the same gradient, and to the metrics. `slope` is that of the
    contrastive loss at the part's features (V, b, ...)."""
    features, values = passed
    losses: dict[str, Tensor] = {}
    metrics: dict[str, Tensor] = {}
    if values is not None:
        loss, found = objective.generate(values)
        losses["generative"] = loss / execution.passes
        metrics = {name: value / execution.passes for name, value in found.items()}
    if slope is not None:  # processes are averaged in the end, and each has the slopes of its own features alone
        losses[objective.compares] = execution.ranks.size * (features * slope.flatten(0, 1)).sum()
    return losses, metrics


@torch.no_grad()
def _of_views(function: Callable[[Tensor], Tensor], parts: Sequence[Views], execution: Execution) -> Tensor:
    """What a function gives of the tokens of all views, part by part: (V, b, ...)."""
    with execution.autocast(parts[0].tokens.device):
        found = [function(part.tokens.flatten(0, 1)) for part in parts]
    return torch.cat([f.unflatten(0, p.tokens.shape[:2]) for f, p in zip(found, parts, strict=True)], 1)


def _contrast(objective: Objective, batch: Batch, found: StepResult) -> Tensor:
    """The slope of the contrastive loss at the features (V, B, D) of the whole batch. Leaves the gradients of the
    projection head and of what the term owns in place: every process computes the same ones."""
    loss, metrics = objective.contrast(batch)
    loss.backward()
    found.terms[objective.compares] = loss.detach()
    found.metrics.update(metrics)
    assert batch.features.grad is not None
    return batch.features.grad


def _add(to: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        to[name] = to[name] + value if name in to else value
