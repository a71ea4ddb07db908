import numpy as np
import pytest
import torch
from torch import Tensor

from components.model.gcrl import GCRL
from components.model.sampling import sample

FORMS = pytest.mark.parametrize("patch_size", [1, 2], ids=["pixel tokens", "patch tokens"])


@torch.no_grad()
def naive_sample(model: GCRL, n: int, seed: int, given: Tensor | None = None) -> Tensor:
    """Every token from a whole pass over the image, nothing kept from the pass before."""
    assert model.head is not None
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(n, model.patches, model.head.tokens, dtype=torch.long)
    first = 0
    if given is not None:
        first = given.shape[1]
        tokens[:, :first] = given
    for t in range(first, model.patches):
        for s in range(model.head.tokens):
            logits = model.head(model.contexts(model.encode(tokens)[:, :-1]), tokens)[:, t, s]
            tokens[:, t, s] = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    return tokens


@FORMS
def test_kept_keys_and_values_give_the_images_of_naive_resampling(make_model, patch_size):
    model = make_model(patch_size, image_size=4, colours=6)
    for seed in range(3):
        drawn = sample(model, 20, torch.Generator().manual_seed(seed))
        assert torch.equal(drawn, naive_sample(model, 20, seed))
    assert not torch.equal(drawn, sample(model, 20, torch.Generator().manual_seed(0)))


@FORMS
def test_given_patches_stay_and_the_rest_is_drawn_after_them(make_model, patch_size):
    model = make_model(patch_size, image_size=4, colours=6)
    whole = sample(model, 30, torch.Generator().manual_seed(0))
    for known in (1, model.patches // 2, model.patches - 1, model.patches):
        given = whole[:, :known].roll(1, 0)
        drawn = sample(model, 30, torch.Generator().manual_seed(1), given=given)
        assert torch.equal(drawn[:, :known], given)
        assert torch.equal(drawn, naive_sample(model, 30, 1, given))


@FORMS
def test_images_are_as_frequent_as_they_are_likely(make_model, patch_size):
    from scipy.stats import chisquare

    model = make_model(patch_size, image_size=2, colours=2)
    n = 20_000
    drawn = sample(model, n, torch.Generator().manual_seed(0)).flatten(1)  # (n, 4)
    counts = np.bincount((drawn @ torch.tensor([8, 4, 2, 1])).numpy(), minlength=16)
    every = torch.tensor([[(i >> bit) & 1 for bit in (3, 2, 1, 0)] for i in range(16)])
    with torch.no_grad():
        expected = torch.exp(-model(every.view(16, model.patches, -1)).nll.double().sum((1, 2))).numpy() * n
    assert expected.max() > 4 * expected.min()
    assert chisquare(counts, expected * n / expected.sum()).pvalue > 0.001


def test_a_low_temperature_draws_the_likeliest_token(make_model):
    model = make_model(image_size=4, colours=6)
    cold = sample(model, 2, torch.Generator().manual_seed(0), temperature=1e-4)
    assert torch.equal(cold[0], cold[1])
    assert model.head is not None
    with torch.no_grad():
        logits = model.head(model.contexts(model.encode(cold)[:, :-1]), cold)
    assert torch.equal(logits.argmax(-1), cold)


def test_a_variant_without_a_likelihood_cannot_draw(make_model):
    with pytest.raises(AssertionError, match="likelihood"):
        sample(make_model(w_gen=0), 1, torch.Generator())
