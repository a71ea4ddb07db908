"""What an image's local statistics alone explain: the trained local head, told nothing of the rest of the image.

The background model of a likelihood ratio (Ren et al. 2019, arXiv 1906.02845, section 3): Π_t p(patch_t | c), where p
is the variant's own local head, unchanged, and c one context for all patches of all images instead of what the
transformer found out about the patches before: the likeliest one on training images, as far as L-BFGS gets. This is an
exact likelihood of the same tokens, in the same unit; it knows strokes, edges and colours, but neither where a patch
lies nor what is around it.

Ren et al. and Schirrmeister et al. (2020, arXiv 2006.10848) train a second model: on noised images, the noise tuned on
an OOD set, or on a more general data set. Here c alone is fitted, and nothing is tuned.
"""

import numpy as np
import torch
from torch import Tensor

from components.model.gcrl import GCRL
from components.model.tokens import to_unit

IMAGES, PATCHES = 1024, 4096  # of the training images at most: the context has only D numbers
ITERATIONS = 50


def fit_context(model: GCRL, images: np.ndarray, device: torch.device) -> Tensor:
    """The context (D,) under which patches of `images`, uint8 (N, H, W, C), are likeliest to the local head, by L-BFGS.

    The model must have a local head. The same images give the same context.
    """
    head = model.head
    assert head is not None
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(images))[:IMAGES])
    tokens = model.tokenizer(to_unit(torch.from_numpy(images[rows]).to(device)))
    patches = model.scored_tokens(tokens).flatten(0, 1)  # (n · T, S, ...)
    chosen = torch.from_numpy(rng.permutation(len(patches))[:PATCHES])
    patches = patches[chosen.to(device)]
    context = torch.zeros(1, len(model.start), device=device, requires_grad=True)
    optimizer = torch.optim.LBFGS([context], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        loss = head.nll(context, patches).mean()
        (context.grad,) = torch.autograd.grad(loss, context)  # of the context alone: the head stays as it is
        return loss

    optimizer.step(closure)
    return context.detach()[0]


@torch.no_grad()
def nll_without_context(
    model: GCRL, context: Tensor, images: np.ndarray, device: torch.device, batch_size: int = 256
) -> Tensor:
    """Mean NLL in nats a pixel of `images`, uint8 (N, H, W, C), all patches given `context` (D,): float64 (N,), on the
    CPU."""
    assert model.head is not None
    nll = []
    for start in range(0, len(images), batch_size):
        pixels = torch.from_numpy(np.array(images[start : start + batch_size])).to(device)
        tokens = model.scored_tokens(model.tokenizer(to_unit(pixels)))  # (B, T, S, ...)
        nll.append(model.head.nll(context[None, None], tokens).double().mean((1, 2)).cpu())
    return torch.cat(nll)
