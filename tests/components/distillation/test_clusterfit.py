import copy
import math

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from components.distillation import clusterfit
from components.distillation.clusterfit import ClusterFit
from components.distillation.config import ClusterFitConfig
from components.errors import ConfigError
from components.objectives.parts.clusters import cluster, encoder_of

CONFIG = ClusterFitConfig(clusters=6)


@pytest.mark.trains
def test_the_classes_are_clusters_of_the_teachers_features(teacher, data):
    before = copy.deepcopy(teacher.state_dict())
    torch.manual_seed(3)
    fit = ClusterFit(8, teacher, data.images, CONFIG)
    fit(torch.randn(1, 8), torch.tensor([0]))
    assert fit.clusters.unique().tolist() == list(range(6))
    other = cluster(data.images, encoder_of(teacher), 6, 0, None)
    assert adjusted_rand_score(fit.clusters, other) > 0.3  # two runs of k-means on the same features
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_it_equals_a_naive_loop(teacher, data):
    fit = ClusterFit(8, teacher, data.images, CONFIG)
    student, images = torch.randn(5, 8), torch.tensor([7, 90, 3, 4, 55])
    found, total = fit(student, images).item(), 0.0
    for features, image in zip(student, images, strict=True):
        logits = (fit.classifier.weight @ features + fit.classifier.bias).tolist()
        total -= math.log(math.exp(logits[fit.clusters[image]]) / sum(map(math.exp, logits)))
    assert found == pytest.approx(total / 5, rel=1e-5)


def test_the_clusters_are_found_once_and_are_in_the_resume_file(teacher, data, monkeypatch):
    """So that a resumed run goes on with the same ones, whatever the machine makes of the features."""
    found: list[int] = []

    def counted(*arguments, **options):
        found.append(len(found))
        return cluster(*arguments, **options)

    monkeypatch.setattr(clusterfit, "cluster", counted)
    first, other = (ClusterFit(8, teacher, data.images, CONFIG) for _ in range(2))
    batch = torch.randn(5, 8), torch.arange(5)
    assert found == []
    losses = [first(*batch), first(*batch)]
    assert found == [0]
    other.load_state_dict(first.state_dict())
    assert torch.equal(other(*batch), losses[1])
    assert found == [0]
    assert torch.equal(other.clusters, first.clusters)


def test_more_clusters_than_images_are_refused(teacher, data):
    with pytest.raises(ConfigError, match=r"clusterfit.clusters: 97, but there are only 96 images"):
        ClusterFit(8, teacher, data.images, ClusterFitConfig(clusters=97))
