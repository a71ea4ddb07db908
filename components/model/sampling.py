"""Images drawn from the decoder, from nothing or from the upper part of an image."""

import itertools

import torch
from torch import Tensor

from components.model.gcrl import GCRL
from components.model.transformer import Cache


@torch.no_grad()
def sample(
    model: GCRL,
    n: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    given: Tensor | None = None,
) -> Tensor:
    """Draw token images (n, T, S, ...) from the model's distribution, each patch after all patches before it.

    Keys and values of finished positions are kept, so that a patch costs one position's work, not the whole sequence's.

    Args:
        generator: on the CPU, whatever the model's device, so that a seed gives the same images everywhere.
        temperature: every token's logits are divided by it: below 1, likely values become likelier.
        top_k: draw each token from its k likeliest values alone.
        given: tokens (n, t, S, ...) of the first t patches in raster order, taken as they are.
    """
    assert model.head is not None, "only a variant with a likelihood can draw images"
    model.eval()
    device = model.start.device
    tokens = torch.zeros(n, model.patches, *model.head.shape, dtype=torch.long, device=device)
    known = 0 if given is None else given.shape[1]
    if given is not None:
        tokens[:, :known] = given.to(device)
    encoder_cache, decoder_cache = Cache(model.patches), Cache(model.patches)
    inputs = model.embed(tokens[:, :known])  # the start and the given patches
    for t in range(known, model.patches):
        context = model.contexts(model.encoder(inputs, encoder_cache), cache=decoder_cache)[:, -1]  # (n, D)
        patch = tokens[:, t]
        for i, index in enumerate(itertools.product(*map(range, model.head.shape))):
            logits = model.head.log_probabilities(context, patch, index) / temperature  # (n, V)
            if top_k is not None and top_k < logits.shape[-1]:
                logits = logits.where(logits >= logits.topk(top_k).values[:, -1:], float("-inf"))
            drawn = torch.multinomial(logits.softmax(-1).cpu(), 1, generator=generator)
            patch.view(n, -1)[:, i] = drawn[:, 0].to(device)
        inputs = model.embed(tokens[:, t : t + 1], first=t)[:, 1:]
    return tokens
