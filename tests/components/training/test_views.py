import pytest
import torch

from components.data.config import AugmentationConfig
from components.model.tokens import to_unit
from components.training.data import step_generator
from components.training.ranks import Ranks
from components.training.views import Views, draw_views

CPU = torch.device("cpu")
AUGMENTATION = AugmentationConfig(crop_scale=0.8, translate=0.1, brightness=0.2, contrast=0.2, blur=0.5)


@pytest.fixture
def model(make_model):
    return make_model(2, 8, 8)


def drawn(model, pixels, views: int = 2, ranks: Ranks = Ranks(), augmentation=AUGMENTATION) -> Views:  # noqa: B008
    return draw_views(model, pixels, views, augmentation, step_generator(0, 0, CPU), ranks, scored_views=views)


@pytest.mark.parametrize("views", [2, 4])
def test_views_are_whole_tokens_of_independent_draws(model, stripes, views):
    pixels = torch.from_numpy(stripes[0][:16])
    found = drawn(model, pixels, views)
    assert found.tokens.shape == (views, 16, 16, 4)
    assert found.tokens.dtype == torch.int64
    untouched = (found.condition == 0).all(2)
    assert 0 < untouched.sum() < views * 16
    original = model.tokenizer(to_unit(pixels)).expand(views, -1, -1, -1)
    assert torch.equal(found.tokens[untouched], original[untouched])
    assert len({condition.numpy().tobytes() for condition in found.condition}) == views


@pytest.mark.parametrize("size", [2, 4])
def test_processes_share_the_views_that_one_alone_would_draw(model, stripes, size):
    pixels = torch.from_numpy(stripes[0][:16])
    whole = drawn(model, pixels, 3)
    ranks = [Ranks(rank, size) for rank in range(size)]
    shares = [drawn(model, pixels[r.share(16)], 3, r) for r in ranks]
    assert torch.equal(torch.cat([s.tokens for s in shares], 1), whole.tokens)
    assert torch.equal(torch.cat([s.condition for s in shares], 1), whole.condition)


def test_parts_hold_all_views_of_their_images(model, stripes):
    whole = drawn(model, torch.from_numpy(stripes[0][:12]), 3)
    parts = Views(whole.tokens, whole.condition, torch.arange(24).view(2, 12, 1)).split(4)
    assert [tuple(p.tokens.shape[:2]) for p in parts] == [(3, 3)] * 4
    assert torch.equal(torch.cat([p.tokens for p in parts], 1), whole.tokens)
    assert torch.equal(torch.cat([p.condition for p in parts], 1), whole.condition)
    assert parts[1].scored is not None
    assert parts[1].scored.flatten().tolist() == [3, 4, 5, 15, 16, 17]
    assert all(p.scored is None for p in whole.split(4))
