import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from components.data.augment import condition_size
from components.model.gcrl import GCRL
from components.model.transformer import Attention

TOLD = condition_size(channels=1)
FORMS = pytest.mark.parametrize("patch_size", [1, 2], ids=["pixel tokens", "patch tokens"])


def all_images(size: int, colours: int) -> Tensor:
    """Palette indices of every image there is, (K^(H·W), H, W)."""
    return torch.tensor(list(itertools.product(range(colours), repeat=size**2))).view(-1, size, size)


@torch.no_grad()
def log_likelihoods(model: GCRL, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
    """Logarithms of each token's whole distribution, (n, T·S, K) in raster order."""
    assert model.head is not None
    contexts = model.contexts(model.encode(tokens)[:, :-1], condition)
    return model.head(contexts, tokens).log_softmax(-1).flatten(1, 2)


@pytest.mark.parametrize(
    ("patch_size", "image_size", "colours"),
    [(1, 2, 3), (2, 2, 3), (1, 3, 2), (2, 4, 2)],
    ids=["2×2, pixel tokens", "2×2, patch tokens", "3×3, pixel tokens", "4×4, patch tokens"],
)
@pytest.mark.parametrize("told", [False, True], ids=["clean", "told"])
def test_the_probabilities_of_all_images_sum_to_one(make_model, patch_size, image_size, colours, told):
    shape = {"encoder_layers": 1, "decoder_layers": 1} if image_size == 4 else {}
    model = make_model(patch_size, image_size, colours, **shape)
    tokens = model.tokenizer.patches(all_images(image_size, colours))
    condition = torch.linspace(-1, 1, TOLD).expand(len(tokens), -1) if told else None
    with torch.no_grad():
        log_p = -model(tokens, condition).nll.double().sum((1, 2))  # (n,)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert log_p.max() > log_p.min() + 1  # far from uniform: the sum is no accident


@FORMS
@pytest.mark.parametrize("longest_explicit", [128, 0], ids=["explicit", "fused"])
def test_a_tokens_distribution_depends_on_the_tokens_before_it_alone(
    make_model, patch_size, longest_explicit, monkeypatch
):
    monkeypatch.setattr(Attention, "LONGEST_EXPLICIT", longest_explicit)
    model = make_model(patch_size, image_size=4, colours=5)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, (8, model.patches, patch_size**2), generator=generator)
    before = log_likelihoods(model, tokens)
    for i in range(16):
        later = tokens.flatten(1).clone()  # (n, T·S)
        later[:, i:] = (later[:, i:] + torch.randint(1, 5, later[:, i:].shape, generator=generator)) % 5
        difference = (log_likelihoods(model, later.view_as(tokens)) - before).abs().amax((0, 2))  # (T·S,)
        assert (difference[: i + 1] < 1e-6).all()
        assert (difference[i + 1 :] > 1e-3).all()


EIGHT_BIT = pytest.mark.parametrize("likelihood", ["logistic_mixture", "categorical"])


@torch.no_grad()
def distributions(model: GCRL, tokens: Tensor) -> Tensor:
    """Logarithms of each sub-pixel's whole distribution, (n, T·S·C, 256) in the order of their factors."""
    assert model.head is not None
    contexts = model.contexts(model.encode(tokens)[:, :-1])
    indices = itertools.product(*map(range, model.head.shape))
    return torch.stack([model.head.log_probabilities(contexts, tokens, i) for i in indices], 2).flatten(1, 2)


@EIGHT_BIT
@FORMS
@settings(max_examples=10)
@given(position=st.integers(0, 47), seed=st.integers(0, 2**32 - 1))
def test_a_sub_pixels_distribution_depends_on_the_sub_pixels_before_it_alone(
    make_model, likelihood, patch_size, position, seed
):
    model = make_model(patch_size, image_size=4, channels=3, likelihood=likelihood)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(256, (2, model.patches, patch_size**2, 3), generator=generator)
    later = tokens.flatten(1).clone()
    later[:, position:] = torch.randint(256, later[:, position:].shape, generator=generator)
    difference = (distributions(model, later.view_as(tokens)) - distributions(model, tokens)).abs().amax((0, 2))
    assert (difference[: position + 1] < 1e-4).all()
    if position < 40:  # as far as one can see, all that come later are changed by it
        assert difference[position + 1 :].amax() > 1e-3


@EIGHT_BIT
@FORMS
@pytest.mark.parametrize("channels", [1, 3])
def test_the_nll_of_8_bit_pixels_is_the_sum_over_their_channels(make_model, likelihood, patch_size, channels):
    model = make_model(patch_size, image_size=4, channels=channels, likelihood=likelihood)
    shape = (3, model.patches, patch_size**2, channels)
    tokens = torch.randint(256, shape, generator=torch.Generator().manual_seed(0))
    picked = distributions(model, tokens).gather(-1, tokens.flatten(1)[..., None])[..., 0]
    with torch.no_grad():
        nll = model(tokens).nll
    assert nll.shape == shape[:3]
    torch.testing.assert_close(nll, -picked.view(shape).sum(-1), atol=1e-3, rtol=1e-4)


@FORMS
def test_the_nll_is_that_of_the_images_own_tokens(make_model, patch_size):
    model = make_model(patch_size, image_size=4, colours=5)
    tokens = torch.randint(5, (3, model.patches, patch_size**2), generator=torch.Generator().manual_seed(0))
    picked = log_likelihoods(model, tokens).gather(-1, tokens.flatten(1)[..., None])
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).nll.flatten(1), -picked[..., 0])


@FORMS
def test_features_depend_on_every_token(make_model, patch_size):
    model = make_model(patch_size, image_size=4, colours=5)
    tokens = torch.zeros(1, model.patches, patch_size**2, dtype=torch.long)
    one_changed = torch.eye(16, dtype=torch.long).view(16, model.patches, patch_size**2)
    with torch.no_grad():
        difference = model(one_changed).features - model(tokens).features
    assert (difference.abs().amax(1) > 1e-4).all()


def test_the_decoder_is_told_the_augmentation_and_the_encoder_never(make_model):
    model = make_model(image_size=4)
    tokens = torch.randint(3, (4, 16, 1), generator=torch.Generator().manual_seed(0))
    condition = torch.randn(4, TOLD, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        clean, told = model(tokens), model(tokens, condition)
        zero = model(tokens, torch.zeros(4, TOLD))
        for parameter in range(TOLD):  # each of them reaches the decoder
            alone = torch.zeros(4, TOLD)
            alone[:, parameter] = 1
            assert (model(tokens, alone).nll - clean.nll).abs().max() > 1e-3
    assert torch.equal(clean.features, told.features)
    assert torch.equal(clean.projections, told.projections)
    assert torch.equal(zero.nll, clean.nll)


def test_a_decoder_that_is_not_told_ignores_the_augmentation(make_model):
    model = make_model(image_size=4, condition_on_augmentation=False)
    tokens = torch.zeros(2, 16, 1, dtype=torch.long)
    with torch.no_grad():
        assert torch.equal(model(tokens).nll, model(tokens, torch.randn(2, TOLD)).nll)


@pytest.mark.parametrize(
    ("w_gen", "w_con", "parts"),
    [
        (1, 1, {"projection", "condition", "decoder", "decoder_norm", "head"}),
        (1, 0, {"condition", "decoder", "decoder_norm", "head"}),
        (0, 1, {"projection"}),
    ],
    ids=["hybrid", "generative", "contrastive"],
)
def test_a_variant_has_the_parts_that_it_needs_and_no_more(make_model, w_gen, w_con, parts):
    model = make_model(w_gen=w_gen, w_con=w_con)
    encoder = {"tokenizer", "embedding", "patch", "start", "position", "encoder", "norm"}
    assert {name.split(".")[0] for name in model.state_dict()} == encoder | parts
    outputs = model(torch.zeros(2, 4, 1, dtype=torch.long))
    assert (outputs.nll is not None) == (w_gen > 0)
    assert (outputs.projections is not None) == (w_con > 0)


def test_projections_have_unit_length_in_float32(make_model):
    model = make_model(image_size=4).train()
    tokens = torch.randint(3, (6, 16, 1), generator=torch.Generator().manual_seed(0))
    for precision in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            outputs = model(tokens)
        assert {outputs.projections.dtype, outputs.features.dtype, outputs.nll.dtype} == {torch.float32}
        torch.testing.assert_close(outputs.projections.norm(dim=1), torch.ones(6))


def test_each_loss_reaches_its_own_part_of_the_model(make_model):
    """The likelihood everything but what the projections are made of, the contrast nothing above the encoder."""
    model = make_model(2, image_size=4, colours=3).train()
    tokens = torch.randint(3, (8, 4, 4), generator=torch.Generator().manual_seed(0))
    outputs = model(tokens, torch.ones(8, TOLD))
    for loss, missed in (
        (outputs.nll.mean(), {"norm", "projection"}),
        (outputs.projections.square()[:, 0].mean(), {"condition", "decoder", "decoder_norm", "head"}),
    ):
        model.zero_grad(set_to_none=True)
        loss.backward(retain_graph=True)
        reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert {name.split(".")[0] for name, _ in model.named_parameters() if name not in reached} == missed


@EIGHT_BIT
def test_8_bit_losses_start_near_those_of_a_uniform_distribution_and_reach_every_parameter(make_model, likelihood):
    model = make_model(2, image_size=4, channels=3, likelihood=likelihood, fresh=True)
    tokens = torch.randint(256, (8, 4, 4, 3), generator=torch.Generator().manual_seed(0))
    bits = model(tokens).nll.mean() / (3 * math.log(2))
    assert 7.5 < bits < (8.001 if likelihood == "categorical" else 10)  # noise has more colours than nature
    moved = make_model(2, image_size=4, channels=3, likelihood=likelihood).train()
    outputs = moved(tokens, torch.ones(8, moved.condition.in_features))
    (outputs.nll.mean() + outputs.projections.square()[:, 0].mean()).backward()
    for name, parameter in moved.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
