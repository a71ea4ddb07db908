"""Images drawn from the decoder, from nothing or from a part of an image."""

import itertools
import math

import torch
from torch import Tensor

from components.model.gcrl import GCRL
from components.model.local_head import LocalHead
from components.model.transformer import Cache


@torch.no_grad()
def sample(
    model: GCRL,
    n: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    given: Tensor | None = None,
    order: Tensor | None = None,
) -> Tensor:
    """Draw token images (n, T, S, ...) from the model's distribution, each patch after all patches before it: of the
    reduced image where that is what the likelihood is of.

    Keys and values of finished positions are kept, so that a patch costs one position's work, not the whole sequence's.

    Args:
        generator: on the CPU, whatever the model's device, so that a seed gives the same images everywhere.
        temperature: every token's logits are divided by it: below 1, likely values become likelier.
        top_k: draw each token from its k likeliest values alone.
        given: tokens (n, t, S, ...) of the first t patches in the order, taken as they are.
        order: all patches (T,), as they are to come one after the other, of a model that takes any order; by default
            that of the raster.
    """
    assert model.head is not None, "only a variant with a likelihood can draw images"
    assert order is None or model.next_position is not None, "this variant draws images in raster order alone"
    model.eval()
    device = model.start.device
    sequence = model.scored
    tokens = torch.zeros(n, sequence.patches, *model.head.shape, dtype=torch.long, device=device)
    order = torch.arange(sequence.patches, device=device) if order is None else order.to(device)
    known = 0 if given is None else given.shape[1]
    if given is not None:
        tokens[:, order[:known]] = given.to(device)
    uniform = torch.rand(n, sequence.patches - known, math.prod(model.head.shape), generator=generator).to(device)
    encoder_cache, decoder_cache = Cache(sequence.patches), Cache(sequence.patches)
    seen = torch.cat([order.new_zeros(1), order[:known] + 1])
    inputs = sequence.embed(tokens)[:, seen]  # the start and the given patches
    following = order[: known + 1]
    for t in range(known, sequence.patches):
        encoded = model.encoder(inputs, encoder_cache)
        context = model.contexts(encoded, cache=decoder_cache, following=following)[:, -1]  # (n, D)
        place = int(order[t])
        patch = tokens[:, place]
        for i, index in enumerate(itertools.product(*map(range, model.head.shape))):
            logits = model.head.log_probabilities(context, patch, index) / temperature  # (n, V)
            if top_k is not None and top_k < logits.shape[-1]:
                logits = logits.where(logits >= logits.topk(top_k).values[:, -1:], float("-inf"))
            patch.view(n, -1)[:, i] = _drawn(logits.softmax(-1), uniform[:, t - known, i])
        inputs = sequence.embed(tokens[:, place : place + 1], first=place)[:, 1:]
        following = order[t + 1 : t + 2]
    return tokens


@torch.no_grad()
def sample_patches(head: LocalHead, contexts: Tensor, uniform: Tensor) -> Tensor:
    """Tokens (..., *head.shape) of patches drawn from the head, given contexts (..., D).

    `uniform` (..., S·C) holds a number in [0, 1) for each token, which takes the value where the distribution function
    exceeds it: no generator, so that whoever draws the numbers decides all.
    """
    tokens = torch.zeros(*contexts.shape[:-1], *head.shape, dtype=torch.long, device=contexts.device)
    flat = tokens.view_as(uniform)
    for i, index in enumerate(itertools.product(*map(range, head.shape))):
        flat[..., i] = _drawn(head.log_probabilities(contexts, tokens, index).exp(), uniform[..., i])
    return tokens


def _drawn(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The value (...) at which the distribution function of probabilities (..., V) exceeds uniform (...) in [0, 1).

    It is no value of probability 0. A tenth of the time of torch.multinomial, which draws V random numbers for one.
    """
    reached = probabilities.cumsum(-1)
    level = uniform[..., None] * reached[..., -1:]  # rounded sums may end below 1
    return torch.searchsorted(reached, level, right=True)[..., 0]
