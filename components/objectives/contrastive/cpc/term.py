"""CPC: contrastive predictive coding (van den Oord, Li and Vinyals 2018, arXiv 1807.03748, equations 3 and 4).

The causal encoder is the paper's autoregressive model, the embedding of a patch its latent z. What we changed: steps go
along the raster order, in which an image's rows follow each other, where the paper predicts the rows below from
overlapping patches; a patch is embedded by the encoder's linear map, without its place in the image, where the paper
has a ResNet; negatives are the same for all predictions of a step.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.model.gcrl import GCRL
from components.objectives.base import Batch, ContrastiveTerm, Loss, TrainingSet, feature_size
from components.objectives.contrastive.cpc import CPCConfig


class CPC(ContrastiveTerm[CPCConfig]):
    """What was seen up to a patch tells the patch k further on from others of the batch, k = 1 … `prediction_steps`.

    Owns a linear map for each k.
    """

    def __init__(self, config: CPCConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        size = feature_size(model)
        self.predictors = nn.ModuleList(nn.Linear(size, size, bias=False) for _ in range(config.prediction_steps))

    def represent(self, model: GCRL, tokens: Tensor) -> Tensor:
        """The encoder's normalised output at each position and each patch's embedding (n, T + 1 + T, D)."""
        contexts = model.norm(model.encode(tokens)).float()
        return torch.cat([contexts, model.embed_patches(tokens).float()], 1)

    def pooled(self, represented: Tensor) -> Tensor:
        return represented[..., : represented.shape[-2] // 2 + 1, :].mean(-2)

    def forward(self, batch: Batch) -> Loss:
        patches = batch.features.shape[2] // 2
        contexts, latents = batch.features.split([patches + 1, patches], 2)
        places, chosen = latents.shape[:3].numel(), (self.config.negatives,)
        negatives = torch.randint(places, chosen, generator=batch.generator, device=latents.device)
        found = [cpc(predictor(contexts), latents, k, negatives) for k, predictor in enumerate(self.predictors, 1)]
        losses, accuracies = zip(*found, strict=True)
        return torch.stack(losses).mean(), {"prediction_accuracy": torch.stack(accuracies).mean()}


def cpc(predictions: Tensor, latents: Tensor, step: int, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over positions t of −log exp(p_t·z_{t+k}) / (exp(p_t·z_{t+k}) + Σ_n exp(p_t·z_n)), and how often z_{t+k} is
    likelier than all negatives; float32 scalars.

    Args:
        predictions: p = W_k c (V, B, T + 1, D); c_t has seen t patches, and c_0, which has seen none, predicts nothing.
        latents: z (V, B, T, D), the patches' embeddings, of which the first is z_1.
        step: k, 1 ≤ k < T.
        negatives: places (N,) among the V·B·T latents; the one that is to be predicted does not count.
    """
    seen = latents.shape[2] - step
    p, z = predictions[:, :, 1 : seen + 1], latents[:, :, step:]  # (V, B, T − k, D)
    places = torch.arange(latents.shape[:3].numel(), device=latents.device).view(latents.shape[:3])[:, :, step:]
    scores = p @ latents.flatten(0, 2)[negatives].T  # (V, B, T − k, N)
    scores = scores.masked_fill(places[..., None] == negatives, float("-inf"))
    positive = (p * z).sum(-1)
    return F.softplus(scores.logsumexp(-1) - positive).mean(), (positive > scores.amax(-1)).float().mean()
