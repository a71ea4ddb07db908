"""A pre-norm transformer stack (the iGPT recipe, with QK-norm and zero-initialised residual branches)."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Cache:
    """Keys and values of the positions already seen, of each layer; room for `positions` is taken at once."""

    def __init__(self, positions: int) -> None:
        self.positions = positions
        self.layers: dict[int, tuple[Tensor, int]] = {}  # (2, B, heads, positions, D/heads), and how many are seen
        self.inputs: Tensor | None = None  # (B, seen, D), of a stack that keeps nothing else

    def add(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, seen + T, D/heads), of T more positions than before."""
        if layer not in self.layers:
            self.layers[layer] = (k.new_empty(2, *k.shape[:2], self.positions, k.shape[3]), 0)
        kept, seen = self.layers[layer]
        now = seen + k.shape[2]
        kept[0, :, :, seen:now], kept[1, :, :, seen:now] = k, v
        self.layers[layer] = (kept, now)
        return kept[0, :, :, :now], kept[1, :, :, :now]

    def extend(self, x: Tensor) -> Tensor:
        """All inputs of a stack (B, seen + T, D), of T more positions than before."""
        self.inputs = x if self.inputs is None else torch.cat([self.inputs, x], 1)
        return self.inputs


class Attention(nn.Module):
    """Multi-head self-attention with normalised queries and keys; causal, or over all positions."""

    # Explicit matmul–softmax beats the fused kernel's bf16 backward on CPU while the score matrix is small.
    LONGEST_EXPLICIT = 128

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.gain = nn.Parameter(torch.ones(heads))  # sharpness of each head
        self.out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, cache: Cache | None = None, layer: int = 0) -> Tensor:
        B, T, D = x.shape
        heads = self.query_key_value(x).view(B, T, 3, self.heads, D // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4).contiguous()  # each (B, heads, T, D/heads)
        q = _normalised(q) * (self.gain * (D // self.heads) ** -0.5).to(q.dtype)[:, None, None]
        k = _normalised(k)
        if cache is not None:
            k, v = cache.add(layer, k, v)
        q, k = q.to(v.dtype), k.to(v.dtype)  # CUDA's autocast returns norms in float32
        seen = k.shape[2] - T  # positions before x
        if seen == 0 and (T > self.LONGEST_EXPLICIT or x.is_cuda):
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, scale=1.0)
        else:
            mixed = self._explicit(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)).unflatten(0, (B, self.heads))
        return self.out(mixed.transpose(1, 2).reshape(B, T, D))

    def _explicit(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of queries (B·heads, T, D/heads) on keys and values (B·heads, seen + T, D/heads)."""
        T, all_of_it = q.shape[1], k.shape[1]
        if self.causal and T > 1:
            hidden = torch.ones(T, all_of_it, dtype=torch.bool, device=q.device).triu(all_of_it - T + 1)
            # added by the product itself: a pass of its own over the scores costs as much as the product
            mask = torch.zeros(T, all_of_it, dtype=q.dtype, device=q.device).masked_fill(hidden, float("-inf"))
            scores = torch.baddbmm(mask, q, k.transpose(1, 2))
        else:
            scores = q @ k.transpose(1, 2)
        return scores.softmax(-1).to(v.dtype) @ v


def _normalised(x: Tensor) -> Tensor:
    """Vectors (..., D) of root mean square 1; in x's own precision, which on CPU is twice as fast as F.rms_norm."""
    return x * (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).rsqrt()


class Block(nn.Module):
    """Attention and a GELU MLP, each on a normalised input and added to the residual stream."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal)
        self.mlp_norm = nn.LayerNorm(width)
        expand, shrink = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        nn.init.zeros_(shrink.weight)
        nn.init.zeros_(shrink.bias)
        self.mlp = nn.Sequential(expand, nn.GELU(), shrink)

    def forward(self, x: Tensor, cache: Cache | None = None, layer: int = 0) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cache, layer)
        return x + self.mlp(self.mlp_norm(x))


class Stack(nn.Module):
    """Blocks one after the other on (B, T, D); position t sees positions ≤ t alone, unless the stack is not causal."""

    def __init__(self, width: int, heads: int, layers: int, *, causal: bool = True) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, causal) for _ in range(layers))

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        for layer, block in enumerate(self.blocks):
            x = block(x, cache, layer)
        return x

    def after_each_block(self, x: Tensor) -> Iterator[Tensor]:
        """The sequence (B, T, D) after each block."""
        for block in self.blocks:
            x = block(x)
            yield x
