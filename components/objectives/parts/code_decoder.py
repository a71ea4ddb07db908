"""p(view | code): the decoders that terms with a latent code own."""

import torch
from torch import Tensor, nn

from components.model.gcrl import GCRL
from components.model.transformer import Stack


class PatchDecoder(nn.Module):
    """Given a code for each patch, patches are independent; each is explained exactly by a local head like the model's.

    Args:
        model: whose tokens are explained.
        layers: transformer blocks, over all positions, between codes and local head.
    """

    def __init__(self, model: GCRL, layers: int) -> None:
        super().__init__()
        D = model.config.width
        self.position = nn.Parameter(torch.randn(model.patches, D) * 0.02)
        self.stack = Stack(D, model.config.heads, layers, causal=False)
        self.norm = nn.LayerNorm(D)
        self.head = model.new_head()

    def contexts(self, codes: Tensor) -> Tensor:
        """What the local head reads (n, T, D) of codes (n, T, D)."""
        return self.norm(self.stack(codes + self.position.to(codes.dtype)))

    def nll(self, codes: Tensor, tokens: Tensor) -> Tensor:
        """−log p(tokens | codes) in nats a pixel, float32 (n, T, S), for tokens (n, T, S, ...)."""
        return self.head.nll(self.contexts(codes), tokens)


class CodeDecoder(PatchDecoder):
    """The same with one code of `size` Z for the whole view. Each position reads it by a map of its own."""

    def __init__(self, model: GCRL, size: int, layers: int) -> None:
        super().__init__(model, layers)
        self.code = nn.Linear(size, model.patches * model.config.width)

    def contexts(self, codes: Tensor) -> Tensor:
        """What the local head reads (n, T, D) of codes (n, Z)."""
        return super().contexts(self.code(codes).unflatten(1, self.position.shape))
