import itertools

import numpy as np
import pytest
import torch

from components.evaluation.features.context_likelihood import fit_context, nll_without_context
from components.model.tokens import to_unit

CPU = torch.device("cpu")
HEADS = [
    {"patch_size": 2, "colours": 5},
    {"patch_size": 1, "colours": 5},
    {"patch_size": 2, "channels": 3, "likelihood": "logistic_mixture"},
    {"patch_size": 2, "channels": 3, "likelihood": "categorical"},
]
NAMES = ["palette", "one pixel a patch", "mixture", "categorical"]


def images_of(palette: np.ndarray, n: int, size: int = 4, seed: int = 0) -> np.ndarray:
    """Random images uint8 (N, H, W, C) in which dark colours are frequent."""
    rng = np.random.default_rng(seed)
    return palette[(len(palette) * rng.random((n, size, size)) ** 3).astype(int)]


@pytest.fixture(params=HEADS, ids=NAMES)
def model_and_images(request, make_model, make_palette):
    palette = make_palette(5, request.param.get("channels", 1))
    return make_model(image_size=4, **request.param), images_of(palette, 20)


@pytest.mark.parametrize("patch_size", [1, 2])
def test_it_is_a_likelihood_of_palette_images(make_model, make_palette, patch_size):
    model = make_model(patch_size, image_size=2, colours=3)
    palette = make_palette(3, 1)
    every = np.stack([palette[list(chosen)].reshape(2, 2, 1) for chosen in itertools.product(range(3), repeat=4)])
    nll = nll_without_context(model, fit_context(model, every[:9], CPU), every, CPU)
    assert float(torch.exp(-4 * nll).sum()) == pytest.approx(1, abs=1e-5)  # a mean over four pixels


@pytest.mark.parametrize("likelihood", ["logistic_mixture", "categorical"])
def test_it_is_a_likelihood_of_8_bit_images(make_model, likelihood):
    model = make_model(patch_size=1, image_size=1, likelihood=likelihood)
    every = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    nll = nll_without_context(model, fit_context(model, every[::9], CPU), every, CPU)
    assert float(torch.exp(-nll).sum()) == pytest.approx(1, abs=1e-4)


def test_no_context_nearby_and_none_of_the_model_is_likelier(model_and_images):
    model, images = model_and_images
    context = fit_context(model, images, CPU)
    best = nll_without_context(model, context, images, CPU).mean()
    with torch.no_grad():
        told = model.contexts(model.encode(model.tokenizer(to_unit(torch.from_numpy(images))))[:, :-1])
    for other in (torch.zeros_like(context), told.mean((0, 1)), told[0, 0]):
        assert nll_without_context(model, other, images, CPU).mean() > best + 0.01
    for seed in range(5):
        step = torch.randn(len(context), generator=torch.Generator().manual_seed(seed)) * context.std() / 10
        assert nll_without_context(model, context + step, images, CPU).mean() > best - 1e-3


def test_single_pixels_take_the_entropy_of_their_frequencies(make_model, make_palette):
    """Nothing is left to know of a pixel but how frequent its colour is."""
    palette = make_palette(3, 1)
    images = images_of(palette, 60)
    model = make_model(patch_size=1, image_size=4, colours=3)
    nll = nll_without_context(model, fit_context(model, images, CPU), images, CPU).mean()
    shares = np.unique(images, return_counts=True)[1] / images.size
    assert float(nll) == pytest.approx(-(shares * np.log(shares)).sum(), rel=0.01)


def test_neither_place_nor_surroundings_of_a_patch_matter(model_and_images):
    model, images = model_and_images
    context = fit_context(model, images, CPU)
    p = model.tokenizer.patch_size
    moved = np.roll(images, (p, 2 * p), axis=(1, 2))
    nll, again = (nll_without_context(model, context, each, CPU) for each in (images, moved))
    torch.testing.assert_close(nll, again)


def test_the_model_stays_as_it_is_and_the_same_images_give_the_same_context(model_and_images):
    model, images = model_and_images
    before = {name: value.clone() for name, value in model.state_dict().items()}
    contexts = [fit_context(model, images, CPU) for _ in range(2)]
    torch.testing.assert_close(*contexts, rtol=0, atol=0)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())
    one_by_one = nll_without_context(model, contexts[0], images, CPU, batch_size=1)
    torch.testing.assert_close(nll_without_context(model, contexts[0], images, CPU), one_by_one, atol=1e-4, rtol=1e-5)
