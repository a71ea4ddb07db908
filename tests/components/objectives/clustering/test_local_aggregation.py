import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from components.errors import ConfigError
from components.objectives.base import Batch, TrainingSet
from components.objectives.clustering.local_aggregation import LocalAggregationConfig
from components.objectives.clustering.local_aggregation.term import LocalAggregation, local_aggregation
from components.objectives.config import VariantConfig
from components.objectives.contrastive.instdisc.term import instance_softmax
from components.objectives.objective import build_objective
from components.objectives.parts.clusters import cluster

DATA = TrainingSet(np.zeros((20, 2, 2, 1), np.uint8))
CONFIG = LocalAggregationConfig(
    clusters=3,
    clusterings=2,
    background_neighbours=8,
    recluster_epochs=2,
    instance_epochs=1,
    momentum=0.8,
    temperature=0.5,
)


@pytest.fixture
def model(make_model):
    return make_model(projection_size=6)


@pytest.fixture
def term(model) -> LocalAggregation:
    return LocalAggregation(CONFIG, model, DATA)


def batch(z: Tensor, images: list[int]) -> Batch:
    return Batch(z, z, torch.tensor(images), torch.Generator())


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 12), st.floats(0.1, 2), st.integers(0, 999))
def test_it_equals_a_naive_loop(unit, views, images, background_neighbours, temperature, seed):
    f, bank = unit(views, images, seed=seed), unit(12, seed=seed + 1)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(12, generator=generator)[:images]
    clusters = torch.randint(4, (2, 12), generator=generator)
    losses, sizes = [], []
    for v in range(views):
        for i, image in enumerate(chosen.tolist()):
            score = [math.exp(float(row @ f[v, i]) / temperature) for row in bank]
            near = [image, *sorted(set(range(12)) - {image}, key=lambda j: -score[j])][:background_neighbours]
            close = [j for j in near if any(h[j] == h[image] for h in clusters)]
            losses.append(-math.log(sum(score[j] for j in close) / sum(score[j] for j in near)))
            sizes.append(len(close))
    loss, size = local_aggregation(f, bank, chosen, clusters, background_neighbours, temperature)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-4, abs=1e-6)
    assert size.item() == pytest.approx(sum(sizes) / len(sizes))


def test_where_all_are_near_loss_and_gradient_equal_the_public_librarys(agree, unit):
    """They are those of neighbourhood components analysis, with a cluster for a class."""
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.losses import NCALoss

    bank, images, clusters = unit(9, seed=1), torch.tensor([3, 0, 8, 5]), torch.arange(9) % 3
    library = NCALoss(softmax_scale=1 / 0.3, distance=CosineSimilarity())
    agree(
        lambda f: local_aggregation(F.normalize(f, dim=-1), bank, images, clusters[None], 9, 0.3)[0],
        lambda f: library(f.flatten(0, 1), clusters[images].repeat(2), ref_emb=bank, ref_labels=clusters),
        3 * unit(2, 4),
    )


def test_with_every_image_a_cluster_and_all_near_it_is_instance_discrimination(unit):
    f, bank, images = unit(2, 4), unit(9, seed=1), torch.tensor([3, 0, 8, 5])
    loss, close = local_aggregation(f, bank, images, torch.arange(9)[None], 9, 0.5)
    torch.testing.assert_close(loss, instance_softmax(f, bank, images, 0.5))
    assert close == 1


def test_what_is_not_near_does_not_matter(unit):
    f, bank, clusters = unit(1, 1), unit(9, seed=1), torch.arange(9)[None] % 3
    near = (bank @ f[0, 0]).topk(4).indices
    image = near[0]
    far = [i for i in range(9) if i not in near]
    moved = bank.clone()
    moved[far] = -f[0, 0]
    found = [local_aggregation(f, each, image[None], clusters, 4, 0.5)[0] for each in (bank, moved)]
    assert found[0] == found[1]


@pytest.mark.trains
def test_first_every_image_is_its_own_neighbour_then_cluster_mates_of_the_bank_are(term, model, unit):
    seed = int(term.seed)
    loss, metrics = term(batch(unit(2, 15), list(range(15))))
    assert metrics["close_neighbours"] == 1
    term.after_step(model, 0.1)
    assert torch.equal(term.clusters, torch.arange(20).repeat(2, 1))  # 15 of 20 images
    term(batch(unit(2, 5, seed=1), list(range(15, 20))))
    term.after_step(model, 0.2)
    bank = term.bank.rows.numpy().copy()
    expected = [cluster(bank, lambda rows: rows, 3, seed + h, None) for h in range(2)]
    assert np.array_equal(term.clusters.numpy(), np.stack(expected))
    before = term.clusters.clone()
    for step in range(4):  # two epochs
        assert torch.equal(term.clusters, before)
        loss, metrics = term(batch(unit(2, 10, seed=step + 2), list(range(10))))
        assert metrics["close_neighbours"] > 1
        assert loss.isfinite()
        term.after_step(model, 0.5)
    assert not torch.equal(term.clusters, before)


def test_the_bank_remembers_the_images_of_the_batch_and_no_others(term, model, unit):
    before, z = term.bank.rows.clone(), unit(3, 2)
    term(batch(z, [7, 2]))
    term.after_step(model, 0.1)
    bank = term.bank.rows
    for row, image in enumerate([7, 2]):
        torch.testing.assert_close(bank[image], F.normalize(0.8 * before[image] + 0.2 * z[:, row].mean(0), dim=0))
    rest = [i for i in range(20) if i not in (2, 7)]
    assert torch.equal(bank[rest], before[rest])


def test_gradients_go_to_the_projections_alone(term, unit):
    z = unit(2, 3).requires_grad_()
    term(batch(z, [0, 1, 2]))[0].backward()
    assert z.grad.isfinite().all()
    assert z.grad.abs().sum() > 0
    assert not list(term.parameters())
    assert not any(value.requires_grad for value in term.buffers())


@pytest.mark.trains
def test_a_view_is_drawn_to_cluster_mates(unit):
    """A step down the gradient brings it nearer to a close neighbour that it was not equal to."""
    bank, f = unit(9, seed=1), unit(1, 1).requires_grad_()
    clusters = torch.tensor([[0, 0, 1, 2, 3, 4, 5, 6, 7]])
    loss, _ = local_aggregation(f, bank, torch.tensor([0]), clusters, 9, 0.5)
    loss.backward()
    moved = F.normalize(f.detach() - 0.1 * f.grad, dim=2)
    mates = bank[:2].mean(0)
    assert moved[0, 0] @ mates > f.detach()[0, 0] @ mates


def test_more_clusters_than_images_are_refused(model):
    with pytest.raises(ConfigError, match=r"contrastive.clusters: 21, but there are only 20 images"):
        build_objective(VariantConfig(0, 1, contrastive=LocalAggregationConfig(clusters=21)), model, DATA, 0)
