import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from components.model.gcrl import GCRL
from components.model.sampling import sample, sample_patches
from components.objectives.generative.autoregressive import AutoregressiveConfig
from components.objectives.generative.permuted import PermutedConfig
from components.objectives.generative.pixelcnn import PixelCNNConfig

EIGHT_BIT = pytest.mark.parametrize("likelihood", ["logistic_mixture", "categorical"])
STACKS = pytest.mark.parametrize("term", [AutoregressiveConfig(), PixelCNNConfig()], ids=lambda term: term.name)
FORMS = pytest.mark.parametrize("patch_size", [1, 2], ids=["pixel tokens", "patch tokens"])


@torch.no_grad()
def naive_sample(model: GCRL, n: int, seed: int, given: Tensor | None = None, order: Tensor | None = None) -> Tensor:
    """Every token from a whole pass over the image, nothing kept from the pass before."""
    assert model.head is not None
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(n, model.patches, *model.head.shape, dtype=torch.long)
    raster = order is None
    order = torch.arange(model.patches) if raster else order
    first = 0
    if given is not None:
        first = given.shape[1]
        tokens[:, order[:first]] = given
    uniform = torch.rand(n, model.patches - first, *model.head.shape, generator=generator)
    for t in range(first, model.patches):
        place = int(order[t])
        for index in itertools.product(*map(range, model.head.shape)):
            if raster:
                contexts = model.contexts(model.encode(tokens)[:, :-1])
            else:
                sequence = torch.cat([torch.zeros(1, dtype=torch.long), order + 1])
                encoded = model.encoder(model.embed(tokens)[:, sequence])[:, :-1]
                contexts = model.contexts(encoded, following=order)
            reached = model.head.log_probabilities(contexts[:, t], tokens[:, place], index).softmax(-1).cumsum(-1)
            level = uniform[(slice(None), t - first, *index)] * reached[:, -1]
            tokens[(slice(None), place, *index)] = (reached <= level[:, None]).sum(-1)
    return tokens


@FORMS
@STACKS
def test_what_is_kept_gives_the_images_of_naive_resampling(make_model, patch_size, term):
    model = make_model(patch_size, image_size=4, colours=6, generative=term)
    for seed in range(3):
        drawn = sample(model, 20, torch.Generator().manual_seed(seed))
        assert torch.equal(drawn, naive_sample(model, 20, seed))
    assert not torch.equal(drawn, sample(model, 20, torch.Generator().manual_seed(0)))


@FORMS
@STACKS
def test_given_patches_stay_and_the_rest_is_drawn_after_them(make_model, patch_size, term):
    model = make_model(patch_size, image_size=4, colours=6, generative=term)
    whole = sample(model, 30, torch.Generator().manual_seed(0))
    for known in (1, model.patches // 2, model.patches - 1, model.patches):
        given = whole[:, :known].roll(1, 0)
        drawn = sample(model, 30, torch.Generator().manual_seed(1), given=given)
        assert torch.equal(drawn[:, :known], given)
        assert torch.equal(drawn, naive_sample(model, 30, 1, given))


@FORMS
@STACKS
def test_images_are_as_frequent_as_they_are_likely(make_model, patch_size, term):
    from scipy.stats import chisquare

    model = make_model(patch_size, image_size=2, colours=2, generative=term)
    n = 20_000
    drawn = sample(model, n, torch.Generator().manual_seed(0)).flatten(1)  # (n, 4)
    counts = np.bincount((drawn @ torch.tensor([8, 4, 2, 1])).numpy(), minlength=16)
    every = torch.tensor([[(i >> bit) & 1 for bit in (3, 2, 1, 0)] for i in range(16)])
    with torch.no_grad():
        expected = torch.exp(-model(every.view(16, model.patches, -1)).nll.double().sum((1, 2))).numpy() * n
    assert expected.max() > 2 * expected.min()
    assert chisquare(counts, expected * n / expected.sum()).pvalue > 0.001


@FORMS
def test_a_model_that_takes_any_order_draws_in_it(make_model, patch_size):
    """Kept keys and values give the images of naive resampling; what is given stays, wherever it lies."""
    model = make_model(patch_size, image_size=4, colours=6, generative=PermutedConfig())
    order = torch.randperm(model.patches, generator=torch.Generator().manual_seed(3))
    whole = sample(model, 20, torch.Generator().manual_seed(0), order=order)
    assert torch.equal(whole, naive_sample(model, 20, 0, order=order))
    given = whole[:, order[: model.patches // 2]].roll(1, 0)
    drawn = sample(model, 20, torch.Generator().manual_seed(1), given=given, order=order)
    assert torch.equal(drawn[:, order[: model.patches // 2]], given)
    assert torch.equal(drawn, naive_sample(model, 20, 1, given, order))
    raster = sample(model, 20, torch.Generator().manual_seed(0))
    assert torch.equal(raster, naive_sample(model, 20, 0))


def test_images_drawn_in_any_order_are_as_frequent_as_they_are_likely_in_it(make_model):
    from scipy.stats import chisquare

    model, order = make_model(1, image_size=2, colours=2, generative=PermutedConfig()), torch.tensor([2, 0, 3, 1])
    drawn = sample(model, 20_000, torch.Generator().manual_seed(0), order=order).flatten(1)  # (n, 4)
    counts = np.bincount((drawn @ torch.tensor([8, 4, 2, 1])).numpy(), minlength=16)
    every = torch.tensor([[(i >> bit) & 1 for bit in (3, 2, 1, 0)] for i in range(16)])[..., None]
    with torch.no_grad():
        expected = torch.exp(-model.nll_in_order(every, order).double().sum((1, 2))).numpy() * 20_000
    assert expected.max() > 4 * expected.min()
    assert chisquare(counts, expected * 20_000 / expected.sum()).pvalue > 0.001


def test_a_model_that_knows_the_raster_alone_draws_in_no_other_order(make_model):
    with pytest.raises(AssertionError, match="raster order alone"):
        sample(make_model(), 1, torch.Generator(), order=torch.arange(4))


def test_the_ends_of_the_distribution_function_draw_no_impossible_value(make_model):
    """The smallest and the largest number that torch draws, where the first and the last values are impossible."""
    head = make_model(image_size=2, colours=300).head
    assert head is not None

    def log_probabilities(contexts: Tensor, patches: Tensor, index: tuple[int, ...]) -> Tensor:
        logits = torch.linspace(-3, 3, 300).expand(*contexts.shape[:-1], -1).clone()
        logits[..., :7] = logits[..., -7:] = float("-inf")
        return logits.log_softmax(-1)

    head.log_probabilities = log_probabilities  # type: ignore[method-assign]
    least, most = torch.zeros(5, 1), torch.full((5, 1), 1 - 2**-24)
    assert sample_patches(head, torch.zeros(5, 4), least).unique().tolist() == [7]
    assert sample_patches(head, torch.zeros(5, 4), most).unique().tolist() == [292]


def test_a_low_temperature_draws_the_likeliest_token(make_model):
    model = make_model(image_size=4, colours=6)
    cold = sample(model, 2, torch.Generator().manual_seed(0), temperature=1e-4)
    assert torch.equal(cold[0], cold[1])
    assert model.head is not None
    with torch.no_grad():
        logits = model.head(model.contexts(model.encode(cold)[:, :-1]), cold)
    assert torch.equal(logits.argmax(-1), cold)
    assert torch.equal(sample(model, 2, torch.Generator().manual_seed(1), top_k=1), cold)


def test_top_k_draws_from_the_likeliest_values_as_often_as_they_are_likely(make_model):
    from scipy.stats import chisquare

    model = make_model(image_size=2, colours=6)
    drawn = sample(model, 5000, torch.Generator().manual_seed(0), top_k=3)[:, 0, 0]  # the first token of each
    with torch.no_grad():
        context = model.contexts(model.encode(torch.zeros(1, 4, 1, dtype=torch.long))[:, :-1])[:, 0]
        p = model.head.log_probabilities(context, torch.zeros(1, 1, dtype=torch.long), (0,))[0].double().exp().numpy()
    likeliest = np.sort(np.argsort(p)[-3:])
    assert set(drawn.tolist()) == set(likeliest.tolist())
    expected = p[likeliest] / p[likeliest].sum() * 5000
    assert chisquare(np.bincount(drawn, minlength=6)[likeliest], expected).pvalue > 0.001


def test_a_top_k_beyond_all_values_changes_nothing(make_model):
    model = make_model(image_size=2, colours=6)
    plain, all_of_them = (sample(model, 50, torch.Generator().manual_seed(0), top_k=k) for k in (None, 6))
    assert torch.equal(plain, all_of_them)


@EIGHT_BIT
def test_8_bit_pixels_are_drawn_as_by_naive_resampling(make_model, likelihood):
    model = make_model(2, image_size=4, channels=3, likelihood=likelihood)
    whole = sample(model, 5, torch.Generator().manual_seed(0))
    assert whole.shape == (5, 4, 4, 3)
    assert torch.equal(whole, naive_sample(model, 5, 0))
    given = whole[:, :2].roll(1, 0)
    drawn = sample(model, 5, torch.Generator().manual_seed(1), given=given)
    assert torch.equal(drawn[:, :2], given)
    assert torch.equal(drawn, naive_sample(model, 5, 1, given))


@EIGHT_BIT
def test_8_bit_values_are_as_frequent_as_they_are_likely(make_model, likelihood):
    from scipy.stats import chisquare

    model = make_model(1, image_size=1, channels=3, likelihood=likelihood)
    reds = sample(model, 2000, torch.Generator().manual_seed(0))[:, 0, 0, 0]
    blank = torch.zeros(1, 1, 1, 3, dtype=torch.long)
    with torch.no_grad():
        context = model.contexts(model.encode(blank)[:, :-1])[:, 0]
        p = model.head.log_probabilities(context, blank[:, 0], (0, 0))[0].double().exp().numpy()
    expected = p.reshape(8, 32).sum(1)
    assert expected.max() > 1.5 * expected.min()
    assert chisquare(np.bincount(reds // 32, minlength=8), expected / expected.sum() * 2000).pvalue > 0.001


def test_a_variant_without_a_likelihood_cannot_draw(make_model):
    with pytest.raises(AssertionError, match="likelihood"):
        sample(make_model(w_gen=0), 1, torch.Generator())
