"""DeepCluster: predict the cluster that an image's features fell into (Caron et al. 2018, arXiv 1807.05520, section 3).

Every few epochs the features of the whole training set are clustered by k-means (equation 2); in between a linear
classifier, which begins anew each time, and the encoder learn to tell the clusters apart (equation 1).

What we changed: the features are the encoder's pooled ones. Instead of drawing images uniformly over the clusters, a
view weighs the inverse of its cluster's size, which the paper calls equivalent. Clusters that empty while k-means is
fitted take over the farthest image (scikit-learn) instead of a copy of another's centroid; one that ends up without
images has no weight. With each clustering the classifier's weights begin anew, but not the optimizer's averages of
their gradients, as they do in the authors' code. Before the first clustering, after the first step, the clusters are
arbitrary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.model.gcrl import GCRL
from components.objectives.base import Batch, ContrastiveTerm, Loss, TrainingSet, feature_size
from components.objectives.clustering.deepcluster import DeepClusterConfig
from components.objectives.parts.clusters import cluster, encoder_of


class DeepCluster(ContrastiveTerm[DeepClusterConfig]):
    """Owns the classifier, each image's cluster, and what decides when the next clustering is due."""

    def __init__(self, config: DeepClusterConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        self.images = data.images
        self.classifier = nn.Linear(feature_size(model), config.clusters)
        self.register_buffer("clusters", torch.arange(len(data.images)) % config.clusters)  # (N,)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))  # images since the last clustering
        self.register_buffer("seed", torch.randint(2**31, ()))  # of the next clustering
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))
        self.clusters: Tensor
        self.seen: Tensor
        self.seed: Tensor
        self.begun: Tensor

    def forward(self, batch: Batch) -> Loss:
        targets = self.clusters[batch.images]
        logits = self.classifier(batch.features)  # (V, B, K)
        sizes = self.clusters.bincount(minlength=self.config.clusters)
        self.seen += len(targets)
        return balanced_cross_entropy(logits, targets, sizes), {
            "cluster_accuracy": (logits.detach().argmax(-1) == targets).float().mean(),
            "clusters_in_use": (sizes > 0).sum().float(),
        }

    def after_step(self, model: GCRL, progress: float) -> None:
        if self.begun and self.seen < self.config.recluster_epochs * len(self.images):
            return
        seed = int(self.seed)
        found = cluster(self.images, encoder_of(model), self.config.clusters, seed, self.config.pca_components)
        self.clusters.copy_(torch.from_numpy(found))
        first = torch.randn(self.classifier.weight.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.classifier.weight.copy_(0.01 * first)
            self.classifier.bias.zero_()
        self.seed += 1
        self.seen.zero_()
        self.begun.fill_(True)


def balanced_cross_entropy(logits: Tensor, targets: Tensor, sizes: Tensor) -> Tensor:
    """Weighted mean over views of −log softmax(logits)[target], the weight being 1 / the size of the image's cluster.

    Args:
        logits: (V, B, K).
        targets: the clusters of the images (B,).
        sizes: of the clusters (K,), in images of the training set.
    """
    return F.cross_entropy(logits.float().flatten(0, 1), targets.repeat(len(logits)), 1 / sizes.clamp(min=1))
