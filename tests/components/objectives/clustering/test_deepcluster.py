import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from components.errors import ConfigError, UserError
from components.objectives.base import Batch, TrainingSet
from components.objectives.clustering.deepcluster import DeepClusterConfig
from components.objectives.clustering.deepcluster.term import DeepCluster, balanced_cross_entropy
from components.objectives.config import VariantConfig
from components.objectives.objective import build_objective
from components.objectives.parts.clusters import cluster, encoder_of

CONFIG = DeepClusterConfig(clusters=4, recluster_epochs=2, pca_components=3)
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 1), dtype=np.uint8)


@pytest.fixture
def model(make_model):
    return make_model(2, 4)


@pytest.fixture
def term(model) -> DeepCluster:
    return DeepCluster(CONFIG, model, TrainingSet(IMAGES))


def batch(features: Tensor, images: Tensor) -> Batch:
    return Batch(features, features, images, torch.Generator())


def see(term: DeepCluster, images: int) -> None:
    term(batch(torch.randn(2, images, 16), torch.arange(images)))


@given(st.integers(1, 3), st.integers(1, 5), st.integers(2, 6), st.integers(0, 999))
def test_it_equals_a_naive_loop(views, images, clusters, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(views, images, clusters, generator=generator)
    targets = torch.randint(clusters, (images,), generator=generator)
    sizes = targets.bincount(minlength=clusters) + torch.randint(5, (clusters,), generator=generator)
    total = weights = 0.0
    for v in range(views):
        for i, target in enumerate(targets.tolist()):
            shares = [math.exp(x) for x in logits[v, i].tolist()]
            weight = 1 / int(sizes[target])
            total -= weight * math.log(shares[target] / sum(shares))
            weights += weight
    assert balanced_cross_entropy(logits, targets, sizes).item() == pytest.approx(total / weights, rel=1e-4)


def test_a_large_cluster_weighs_no_more_than_a_small_one():
    """As if images were drawn uniformly over clusters."""
    logits, targets = torch.randn(1, 40, 2), (torch.arange(40) < 4).long()
    each = [torch.nn.functional.cross_entropy(logits[0, targets == c], targets[targets == c]) for c in (0, 1)]
    found = balanced_cross_entropy(logits, targets, targets.bincount())
    torch.testing.assert_close(found, torch.stack(each).mean())


def test_after_the_first_step_and_then_every_few_epochs_the_features_are_clustered_anew(term, model):
    arbitrary, seed = term.clusters.clone(), int(term.seed)
    see(term, 8)
    term.after_step(model, 0.1)
    first = term.clusters.clone()
    assert not torch.equal(first, arbitrary)
    assert torch.equal(first, torch.from_numpy(cluster(IMAGES, encoder_of(model), 4, seed, 3)))
    with torch.no_grad():
        model.patch.weight.add_(torch.randn(model.patch.weight.shape, generator=torch.Generator().manual_seed(5)))
    for _ in range(5):  # 40 of 48 images
        see(term, 8)
        term.after_step(model, 0.2)
    assert torch.equal(term.clusters, first)
    see(term, 8)
    term.after_step(model, 0.3)
    assert torch.equal(term.clusters, torch.from_numpy(cluster(IMAGES, encoder_of(model), 4, seed + 1, 3)))
    assert term.seen == 0


def test_a_model_that_has_diverged_is_told(term, model):
    see(term, 8)
    with torch.no_grad():
        model.patch.weight.fill_(math.nan)
    with pytest.raises(UserError, match="training has diverged"):
        term.after_step(model, 0.1)


def test_the_classifier_begins_anew_with_every_clustering(term, model):
    see(term, 24)
    term.after_step(model, 0.1)
    first = term.classifier.weight.clone()
    with torch.no_grad():
        term.classifier.bias += 1
    see(term, 24)
    term.after_step(model, 0.2)
    assert torch.equal(term.classifier.weight, first)  # not yet
    see(term, 24)
    term.after_step(model, 0.3)
    assert not torch.equal(term.classifier.weight, first)
    assert term.classifier.weight.std().item() == pytest.approx(0.01, rel=0.3)
    assert (term.classifier.bias == 0).all()


def test_what_is_restored_goes_on_as_it_would_have(term, model):
    see(term, 24)
    term.after_step(model, 0.1)
    see(term, 24)
    other = DeepCluster(CONFIG, model, TrainingSet(IMAGES))
    other.load_state_dict(term.state_dict())
    for each in (term, other):
        torch.manual_seed(0)
        see(each, 24)
        each.after_step(model, 0.2)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in term.state_dict().items())


def test_features_and_classifier_learn_and_the_projections_do_not(term):
    features, projections = torch.randn(2, 6, 16).requires_grad_(), torch.randn(2, 6, 8).requires_grad_()
    loss, metrics = term(Batch(features, projections, torch.arange(6), torch.Generator()))
    loss.backward()
    assert (features.grad.abs().sum(2) > 0).all()
    assert term.classifier.weight.grad.abs().sum() > 0
    assert projections.grad is None
    assert set(metrics) == {"cluster_accuracy", "clusters_in_use"}
    assert metrics["clusters_in_use"] == 4


def test_the_accuracy_is_that_of_the_classifier(term):
    with torch.no_grad():
        term.classifier.weight.copy_(torch.eye(4, 16))
        term.classifier.bias.zero_()
    right = torch.eye(16)[term.clusters[:8]]
    assert term(batch(right[None], torch.arange(8)))[1]["cluster_accuracy"] == 1
    assert term(batch(right.roll(1, 1)[None], torch.arange(8)))[1]["cluster_accuracy"] == 0


def test_more_clusters_than_images_are_refused(model):
    with pytest.raises(ConfigError, match=r"contrastive.clusters: 25, but there are only 24 images"):
        build_objective(VariantConfig(0, 1, contrastive=DeepClusterConfig(clusters=25)), model, TrainingSet(IMAGES), 0)
