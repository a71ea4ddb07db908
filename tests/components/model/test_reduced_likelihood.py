"""The likelihood of a picture that is reduced first: exact for what is left, features of the whole."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from components.errors import UserError
from components.model.build import Architecture, load_weights, save_weights
from components.model.config import ModelConfig
from components.model.encode import encode_images, reduce_images
from components.model.gcrl import GCRL
from components.model.sampling import sample
from components.model.tokens import reduced, to_unit
from components.objectives.config import VariantConfig
from components.objectives.generative.autoregressive import AutoregressiveConfig
from components.training.samples import completions

CPU = torch.device("cpu")


def enlarged(tokens: Tensor, factor: int) -> Tensor:
    """Tokens (n, H, W) with each repeated in a square of this side."""
    return tokens.repeat_interleave(factor, 1).repeat_interleave(factor, 2)


@pytest.fixture
def model(make_model) -> GCRL:
    """4×4 pixels in one patch of 4×4, scored as 2×2 pixels, one a patch, of three colours."""
    return make_model(4, 4, 3, generative=AutoregressiveConfig(image_size=2, patch_size=1))


def test_the_probabilities_of_all_reduced_images_sum_to_one(model):
    images = torch.tensor(list(itertools.product(range(3), repeat=4))).view(-1, 2, 2)
    tokens = model.tokenizer.patches(enlarged(images, 2))
    with torch.no_grad():
        log_p = -model(tokens).nll.double().sum((1, 2))  # (n,)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert log_p.max() > log_p.min() + 1  # far from uniform


def test_a_tokens_distribution_depends_on_those_before_it_alone(model):
    tokens = model.tokenizer.patches(enlarged(torch.tensor([[[0, 1], [2, 0]]]), 2))
    other = model.tokenizer.patches(enlarged(torch.tensor([[[0, 1], [0, 0]]]), 2))
    with torch.no_grad():
        before, after = model(tokens).nll[0, :, 0], model(other).nll[0, :, 0]
    assert torch.allclose(before[:2], after[:2], atol=1e-6)
    assert (before[2:] - after[2:]).abs().min() > 1e-3


def test_the_likelihood_sees_the_reduced_image_and_the_features_the_whole(make_model):
    model = make_model(4, 8, channels=3, likelihood="logistic_mixture", generative=AutoregressiveConfig(image_size=4))
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    mirrored = images.copy()
    mirrored[:, :2, :2] = images[:, :2, :2][:, :, ::-1]  # inside a square whose mean is all that is scored
    (features, nll), (other_features, other_nll) = (encode_images(model, x, CPU) for x in (images, mirrored))
    assert torch.equal(nll, other_nll)
    assert (features - other_features).abs().max() > 1e-3


def test_a_training_step_scores_what_evaluation_scores(make_model):
    model = make_model(4, 8, channels=3, likelihood="categorical", generative=AutoregressiveConfig(image_size=4))
    tokens = torch.randint(256, (3, 4, 16, 3), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        everything = model(tokens)
        features, some = model.represent(tokens, scored=torch.zeros(2, 1, dtype=torch.long), likelihoods=2)
    assert torch.allclose(features, everything.features, atol=1e-6)
    assert torch.allclose(some, everything.nll[:2], atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 7])
def test_a_reduced_pixel_is_the_mean_of_its_square(factor):
    side = 5
    images = np.random.default_rng(0).integers(0, 256, (3, side * factor, side * factor, 3), dtype=np.uint8)
    found = reduce_images(images, side)
    assert found.dtype == np.uint8
    for n, y, x, c in np.ndindex(found.shape):
        square = images[n, y * factor : (y + 1) * factor, x * factor : (x + 1) * factor, c]
        assert found[n, y, x, c] == round(Fraction(int(square.sum()), factor**2))  # halves to even
    again = (reduced(to_unit(torch.from_numpy(images)), factor) * 255).permute(0, 2, 3, 1)
    assert np.array_equal(found, again.numpy())


def test_images_are_drawn_and_completed_at_the_reduced_size(make_model):
    model = make_model(
        4, 8, channels=3, likelihood="categorical", generative=AutoregressiveConfig(image_size=4, patch_size=2)
    )
    assert sample(model, 2, torch.Generator().manual_seed(0)).shape == (2, 4, 4, 3)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    rows = completions(model, images, seed=0)
    assert np.array_equal(rows["original"], reduce_images(images, 4))
    assert np.array_equal(rows["completed"][:, :2], rows["original"][:, :2])


def test_weights_come_back(make_model, tmp_path):
    term = AutoregressiveConfig(image_size=2, patch_size=1)
    config = ModelConfig(4, 16, 2, 2, 2, 8, 16, 8)
    palette = np.arange(3, dtype=np.uint8)[:, None]
    architecture = Architecture.of(config, VariantConfig(1, 1, generative=term), 4, palette)
    model = make_model(4, 4, 3, generative=term)
    save_weights(tmp_path / "weights", model, architecture)
    loaded, found = load_weights(tmp_path / "weights", architecture)
    assert found.scored_size == 2
    tokens = torch.randint(3, (2, 1, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(tokens).nll, model(tokens).nll)
    whole = Architecture.of(config, VariantConfig(1, 1), 4, palette)
    with pytest.raises(UserError, match="scored_size is 2, expected 0"):
        load_weights(tmp_path / "weights", whole)
