"""A pre-norm transformer stack (the iGPT recipe, with QK-norm and zero-initialised residual branches)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Cache = dict[int, tuple[Tensor, Tensor]]  # keys and values of the positions already seen, one pair a layer


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
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each (B, heads, T, D/heads)
        q = F.rms_norm(q, q.shape[-1:]) * self.gain.to(q.dtype)[:, None, None]
        k = F.rms_norm(k, k.shape[-1:])
        if cache is not None:
            if layer in cache:
                k, v = torch.cat([cache[layer][0], k], 2), torch.cat([cache[layer][1], v], 2)
            cache[layer] = (k, v)
        q, k = q.to(v.dtype), k.to(v.dtype)  # CUDA's autocast returns norms in float32
        seen = k.shape[2] - T  # positions before x
        if seen == 0 and (T > self.LONGEST_EXPLICIT or x.is_cuda):
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            scores = (q @ k.transpose(2, 3)) * (D // self.heads) ** -0.5  # (B, heads, T, seen + T)
            if self.causal:
                hidden = torch.ones(T, seen + T, dtype=torch.bool, device=x.device).triu(seen + 1)
                scores = scores.masked_fill(hidden, float("-inf"))
            mixed = scores.softmax(-1).to(v.dtype) @ v
        return self.out(mixed.transpose(1, 2).reshape(B, T, D))


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
