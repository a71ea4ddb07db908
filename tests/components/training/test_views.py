from types import SimpleNamespace

import pytest
import torch

from components.data.augment import draw
from components.data.config import AugmentationConfig
from components.model.tokens import to_unit
from components.objectives.base import ContrastiveTerm, GenerativeTerm, TrainingSet
from components.objectives.contrastive.nt_xent import NTXentConfig
from components.objectives.objective import Objective
from components.training.data import step_generator
from components.training.distributed import Ranks
from components.training.views import Views, draw_views

CPU = torch.device("cpu")
AUGMENTATION = AugmentationConfig(crop_min_side=0.8, translate=0.1, brightness=0.2, contrast=0.2, blur_probability=0.5)


@pytest.fixture
def model(make_model):
    return make_model(2, 8, 8)


class Darken(ContrastiveTerm[NTXentConfig]):
    """Takes from the last view a share of its brightness, another one for each image."""

    def draw(self, images, generator):
        return torch.rand(images, generator=generator)

    def alter(self, views, drawn):
        return torch.cat([views[:-1], views[-1:] * drawn[:, None, None, None]])


@pytest.fixture
def darken(model, stripes) -> Darken:
    return Darken(NTXentConfig(), model, TrainingSet(stripes[0]))


def drawn(
    model,
    pixels,
    views: int = 2,
    ranks: Ranks = Ranks(),  # noqa: B008
    augmentation=AUGMENTATION,
    term: ContrastiveTerm | None = None,
) -> Views:
    """Views that are all scored."""
    scoring = GenerativeTerm(SimpleNamespace(scored_views=views), model, TrainingSet(pixels.numpy()))
    return draw_views(model, Objective(term, scoring), pixels, views, augmentation, step_generator(0, 0, CPU), ranks)


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
@pytest.mark.parametrize("altered", [False, True])
def test_processes_share_the_views_that_one_alone_would_draw(model, stripes, size, altered, darken):
    pixels, term = torch.from_numpy(stripes[0][:16]), darken if altered else None
    whole = drawn(model, pixels, 3, term=term)
    ranks = [Ranks(rank, size) for rank in range(size)]
    shares = [drawn(model, pixels[r.share(16)], 3, r, term=term) for r in ranks]
    assert torch.equal(torch.cat([s.tokens for s in shares], 1), whole.tokens)
    assert torch.equal(torch.cat([s.condition for s in shares], 1), whole.condition)


def test_a_contrastive_term_alters_images_before_they_become_tokens(model, stripes, darken):
    pixels, still = torch.from_numpy(stripes[0][:16]), AugmentationConfig(unaltered_probability=1)
    plain, altered = (drawn(model, pixels, 3, augmentation=still, term=term) for term in (None, darken))
    assert torch.equal(altered.tokens[:2], plain.tokens[:2])
    assert torch.equal(altered.condition, plain.condition)
    generator = step_generator(0, 0, CPU)
    draw(still, 48, 1, generator)  # the augmentation's numbers come first
    share = torch.rand(16, generator=generator)
    assert torch.equal(altered.tokens[2], model.tokenizer(to_unit(pixels) * share[:, None, None, None]))


def test_parts_hold_all_views_of_their_images(model, stripes):
    whole = drawn(model, torch.from_numpy(stripes[0][:12]), 3)
    parts = Views(whole.tokens, whole.condition, torch.arange(24).view(2, 12, 1)).split(4)
    assert [tuple(p.tokens.shape[:2]) for p in parts] == [(3, 3)] * 4
    assert torch.equal(torch.cat([p.tokens for p in parts], 1), whole.tokens)
    assert torch.equal(torch.cat([p.condition for p in parts], 1), whole.condition)
    assert parts[1].drawn is not None
    assert parts[1].drawn.flatten().tolist() == [3, 4, 5, 15, 16, 17]
    assert all(p.drawn is None for p in whole.split(4))


def test_moved_views_are_cut_out_of_the_finer_images_and_others_are_the_images(model, stripes):
    pixels = torch.from_numpy(stripes[0][:16])
    finer = 255 - pixels.repeat_interleave(4, 1).repeat_interleave(4, 2)  # the negatives, to tell them apart
    moving = AugmentationConfig(crop_min_side=0.4)
    scoring = GenerativeTerm(SimpleNamespace(scored_views=2), model, TrainingSet(pixels.numpy()))

    def drawn_of(finer):
        generator = step_generator(0, 0, CPU)
        return draw_views(model, Objective(None, scoring), pixels, 2, moving, generator, Ranks(), finer)

    found, coarse = drawn_of(finer), drawn_of(None)
    assert torch.equal(found.condition, coarse.condition), "no other numbers are drawn"
    unmoved = (found.condition == 0).all(2)
    assert 0 < unmoved.sum() < 32
    assert torch.equal(found.tokens[unmoved], model.tokenizer(to_unit(pixels)).expand(2, -1, -1, -1)[unmoved])
    differ = (found.tokens != coarse.tokens).flatten(2).any(2)
    assert differ[~unmoved].all()
