"""An image as the input sequence of a transformer: a learned start, then its patches in raster order."""

import torch
from torch import Tensor, nn

from components.model.config import ModelConfig
from components.model.tokens import PaletteTokenizer, PixelTokenizer, Tokenizer, scaled


class PatchSequence(nn.Module):
    """Tokens of an image's patches, embedded, each with the position that it has in the image.

    Args:
        config: its likelihood says what a token is, its width D how long an embedding.
        palette: uint8 colours (K, C); a likelihood of 8-bit pixels takes no more of it than C.
    """

    def __init__(self, config: ModelConfig, image_size: int, patch_size: int, palette: Tensor) -> None:
        super().__init__()
        D, S = config.width, patch_size**2
        self.image_size, self.patches = image_size, (image_size // patch_size) ** 2
        self.tokenizer: Tokenizer
        self.embedding: nn.Embedding | None
        if config.likelihood == "palette":
            self.tokenizer = PaletteTokenizer(palette, patch_size)
            self.embedding = nn.Embedding(len(palette), config.local_width)
            self.patch = nn.Linear(S * config.local_width, D)
        else:
            self.tokenizer, self.embedding = PixelTokenizer(patch_size), None
            self.patch = nn.Linear(S * palette.shape[1], D)
        self.start = nn.Parameter(torch.randn(D) * 0.02)
        self.position = nn.Parameter(torch.randn(self.patches + 1, D) * 0.02)

    def embed_patches(self, tokens: Tensor) -> Tensor:
        """What patches (B, t, S, ...) are embedded as (B, t, D), wherever in the image they lie."""
        values = self.embedding(tokens) if self.embedding is not None else scaled(tokens)
        return self.patch(values.flatten(2))

    def embed(self, tokens: Tensor, first: int = 0) -> Tensor:
        """The input sequence (B, t + 1, D): a learned start, then each patch of tokens (B, t, S, ...), whose positions
        are first … first + t − 1."""
        patches = self.embed_patches(tokens)  # (B, t, D)
        start = self.start.to(patches.dtype).expand(tokens.shape[0], 1, -1)
        # under autocast the residual stream stays in bfloat16: casting back and forth costs a quarter of a step on CPU
        position = self.position[first : first + tokens.shape[1] + 1].to(patches.dtype)
        return torch.cat([start, patches], 1) + position
