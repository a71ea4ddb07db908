import math

import numpy as np
import pytest
import torch

from components.objectives.base import Batch, TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.predictive.relative_position import RelativePositionConfig
from components.objectives.predictive.relative_position.term import AROUND, RelativePosition, tile

DATA = TrainingSet(np.zeros((20, 4, 4, 1), np.uint8))


@pytest.fixture
def term(make_model) -> RelativePosition:
    return RelativePosition(RelativePositionConfig(), make_model(2, 4), DATA)


def coordinates(images: int, side: int = 48) -> torch.Tensor:
    """Images (b, 2, H, W) whose channels say where a pixel is, x and y between −1 and 1."""
    at = (torch.arange(side) + 0.5) * 2 / side - 1
    return torch.stack([at.expand(side, side), at[:, None].expand(side, side)]).expand(images, 2, side, side)


def test_both_tiles_lie_in_their_cells_of_the_same_view(term):
    drawn = term.draw(400, torch.Generator().manual_seed(0))
    views = torch.stack([coordinates(400), torch.full((400, 2, 48, 48), torch.nan)])
    middle, beside = term.alter(views, drawn)
    cells = torch.tensor(AROUND)[torch.arange(400) % 8]
    for shown, cell in ((middle, torch.zeros(400, 2)), (beside, cells)):
        low, high = shown.flatten(2).amin(2), shown.flatten(2).amax(2)  # (b, 2)
        torch.testing.assert_close(high - low, torch.full_like(low, 0.5), atol=0.05, rtol=0)  # a quarter of the side
        assert (low >= 2 * cell / 3 - 1 / 3 - 1e-5).all()
        assert (high <= 2 * cell / 3 + 1 / 3 + 1e-5).all()
        assert (low.amax(0) - low.amin(0) > 0.1).all()  # not always in the same place


def test_all_directions_are_as_frequent(term):
    cells = term.draw(24, torch.Generator().manual_seed(0))[:, 0]
    found, counts = cells.unique(dim=0, return_counts=True)
    assert len(found) == 8
    assert (counts == 3).all()
    assert not (found == 0).all(1).any()


def test_a_tile_at_the_edges_of_its_cell():
    corner = tile(coordinates(1), torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0, -1.0]]))[0]
    assert corner[0].max() == pytest.approx(1, abs=0.03)  # the right edge of the image
    assert corner[1].min() == pytest.approx(-1, abs=0.03)  # the upper one


def test_the_loss_is_the_classifiers_cross_entropy_in_a_naive_loop(term):
    features = torch.randn(2, 11, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss, metrics = term(Batch(features, features, torch.arange(11), torch.Generator()))
    losses, right = [], 0
    for i in range(11):
        scores = term.classifier(torch.cat([features[0, i], features[1, i]])).tolist()
        losses.append(math.log(sum(math.exp(s) for s in scores)) - scores[i % 8])
        right += scores[i % 8] == max(scores)
    assert loss.item() == pytest.approx(sum(losses) / 11, rel=1e-5)
    assert metrics["position_accuracy"].item() == pytest.approx(right / 11)
    loss.backward()
    assert features.grad.abs().sum(-1).min() > 0
    assert all(p.grad.abs().sum() > 0 for p in term.classifier.parameters())
    assert not metrics["position_accuracy"].requires_grad


def test_it_is_refused_beside_a_likelihood():
    with pytest.raises(ValueError, match=r"relative_position shows the encoder tiles, .*: set w_gen to 0"):
        VariantConfig(1, 1, contrastive=RelativePositionConfig())
