"""ClusterFit: learn which cluster of the teacher's features an image belongs to (Yan et al. 2020, arXiv 1912.03330).

The teacher's features of the whole training set are clustered once by k-means, in the first step; the student, which
begins from scratch, learns the clusters as if they were classes. The paper gives this as a way to improve a pretrained
network of the same size, by leaving out what its features say beyond the clusters; a smaller student is our use of it.

What we changed: features are L2-normalised before k-means.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.distillation.config import ClusterFitConfig
from components.errors import ConfigError
from components.model.gcrl import GCRL
from components.objectives.parts.clusters import cluster, encoder_of
from components.objectives.settings import fewer_than_images


class ClusterFit(nn.Module):
    """A linear classifier on the student's features, and each image's cluster, which the first batch asks for.

    Args:
        student: length of the student's features.
        images: the training set, uint8 (N, H, W, C).

    Raises:
        ConfigError: there are fewer images than clusters.
    """

    clusters: Tensor  # (N,)
    seed: Tensor
    begun: Tensor  # whether the clusters have been found

    def __init__(self, student: int, teacher: GCRL, images: np.ndarray, config: ClusterFitConfig) -> None:
        super().__init__()
        try:
            fewer_than_images(config.clusters, len(images))
        except ValueError as error:
            raise ConfigError(f"clusterfit.{error}") from error
        self.classifier = nn.Linear(student, config.clusters)
        self.images, self.encode = images, encoder_of(teacher)
        self.register_buffer("clusters", torch.zeros(len(images), dtype=torch.long))
        self.register_buffer("seed", torch.randint(2**31, ()))
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    def forward(self, student: Tensor, images: Tensor) -> Tensor:
        """Mean cross-entropy between the classifier on features (B, D_s) and the clusters of these images (B,)."""
        if not self.begun:
            found = cluster(self.images, self.encode, self.classifier.out_features, int(self.seed), pca_components=None)
            self.clusters.copy_(torch.from_numpy(found))
            self.begun.fill_(True)
        return F.cross_entropy(self.classifier(student), self.clusters[images])
