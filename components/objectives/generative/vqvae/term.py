"""The vector-quantised autoencoder (van den Oord, Vinyals and Kavukcuoglu 2017, arXiv 1711.00937, equation 3).

The encoder's output at each patch is replaced by the nearest vector of a codebook; a decoder explains the view by them.
The decoder's gradient is copied to the encoder (straight through). The codebook follows the encoder by a loss, not by
moving averages: a loss is a mean over views, and so the same however many processes and passes share them.

What we changed: outputs and codebook are mapped to the unit sphere before they are compared, as in ViT-VQGAN (Yu et al.
2022, arXiv 2110.04627, section 3.2), which keeps most codes in use; the pixels in a patch are not independent.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.model.gcrl import GCRL
from components.objectives.base import GenerativeTerm, Loss, TrainingSet
from components.objectives.generative.vqvae import VQVAEConfig
from components.objectives.parts.code_decoder import PatchDecoder


class VQVAE(GenerativeTerm[VQVAEConfig]):
    """Reconstruction in nats a token, codebook loss and commitment. Owns the codebook, the maps to it and back, and the
    decoder."""

    def __init__(self, config: VQVAEConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        self.encoded = nn.Linear(model.config.width, config.code_size)
        self.embedding = nn.Embedding(config.codebook_size, config.code_size)
        self.decoded = nn.Linear(config.code_size, model.config.width)
        self.decoder = PatchDecoder(model, config.decoder_layers)

    def represent(
        self, model: GCRL, tokens: Tensor, condition: Tensor, drawn: Tensor | None, scored: int
    ) -> tuple[Tensor, Tensor]:
        """Features (n, D); reconstruction, and the squared distance to the code for the codebook and for the encoder
        (scored, 3), all for each token. In evaluation mode also the share of patches that have each code."""
        encoded = model.encode(tokens)
        vectors = self.vectors(model, encoded[:scored])
        indices = self.nearest(vectors)
        codes = self.codebook()[indices]  # (scored, T, Z)
        through = vectors + (codes - vectors).detach()
        reconstruction = self.decoder.nll(self.decoded(through), tokens[:scored]).mean((1, 2))
        follow = (codes - vectors.detach()).square().sum(-1).mean(1)
        commit = (codes.detach() - vectors).square().sum(-1).mean(1)
        pixels = model.config.patch_size**2
        values = torch.stack([reconstruction, follow / pixels, commit / pixels], 1)
        if not self.training:
            share = torch.zeros(len(indices), self.config.codebook_size, device=indices.device)
            share.scatter_add_(1, indices, torch.full(indices.shape, 1 / model.patches, device=indices.device))
            values = torch.cat([values, share], 1)
        return model.pool(encoded), values

    def forward(self, values: Tensor) -> Loss:
        reconstruction, follow, commit, *_ = values.mean(0)
        metrics = {
            "reconstruction_nats_per_token": reconstruction.detach(),
            "squared_distance_to_code": commit.detach(),
        }
        if not self.training:
            share = values[:, 3:].mean(0)
            metrics["codebook_perplexity"] = torch.special.entr(share).sum().exp()
        return reconstruction + follow + self.config.commitment_weight * commit, metrics

    def vectors(self, model: GCRL, encoded: Tensor) -> Tensor:
        """Unit vectors (n, T, Z), float32, of what the encoder puts out (n, T + 1, D) at each patch."""
        return F.normalize(self.encoded(model.norm(encoded[:, 1:])).float(), dim=-1)

    def codebook(self) -> Tensor:
        """Unit vectors (K, Z)."""
        return F.normalize(self.embedding.weight, dim=-1)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Indices of the nearest codes (...) of unit vectors (..., Z)."""
        with torch.autocast(vectors.device.type, enabled=False):
            return (vectors @ self.codebook().T).argmax(-1)

    @torch.no_grad()
    def tokenize(self, model: GCRL, tokens: Tensor) -> Tensor:
        """The index of each patch's code, int64 (n, T), for tokens (n, T, S, ...)."""
        return self.nearest(self.vectors(model, model.encode(tokens)))

    @torch.no_grad()
    def reconstruct(self, indices: Tensor) -> Tensor:
        """Tokens (n, T, S, ...) of code indices (n, T): pixel by pixel the likeliest, given those before in a patch."""
        contexts, shape = self.decoder.contexts(self.decoded(self.codebook()[indices])), self.decoder.head.shape
        tokens = torch.zeros(*indices.shape, *shape, dtype=torch.long, device=indices.device)
        for i, index in enumerate(itertools.product(*map(range, shape))):
            likeliest = self.decoder.head.log_probabilities(contexts, tokens, index).argmax(-1)
            tokens.flatten(2)[..., i] = likeliest  # a view
        return tokens
