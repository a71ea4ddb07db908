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
from components.objectives.config import VariantConfig
from components.objectives.contrastive.dim import DIMConfig
from components.objectives.contrastive.dim.term import DIM, local_global
from components.objectives.objective import build_objective

DATA = TrainingSet(np.zeros((5, 4, 4, 1), np.uint8))


@pytest.fixture
def model(make_model):
    return make_model(2, 4, 5, w_gen=0, encoder_layers=3)


@pytest.fixture
def tokens() -> Tensor:
    """Two views of three images."""
    return torch.randint(5, (6, 4, 4), generator=torch.Generator().manual_seed(0))


@given(st.integers(2, 5), st.integers(1, 4), st.floats(0.1, 2), st.integers(0, 999))
def test_it_equals_a_naive_loop(unit, images, parts, temperature, seed):
    z, local = unit(images, seed=seed), unit(images, parts, seed=seed + 1)
    losses = []
    for i in range(images):
        others = [
            math.exp(float(z[i] @ local[j, s]) / temperature) for j in range(images) if j != i for s in range(parts)
        ]
        for t in range(parts):
            match = math.exp(float(z[i] @ local[i, t]) / temperature)
            losses.append(-math.log(match / (match + sum(others))))
    assert local_global(z, local, temperature).item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_loss_and_gradient_equal_the_public_librarys(agree, unit):
    from pytorch_metric_learning.losses import NTXentLoss

    images = torch.arange(5)
    agree(
        lambda z, local: local_global(F.normalize(z, dim=1), F.normalize(local, dim=2), 0.3),
        lambda z, local: NTXentLoss(0.3)(
            z, images, ref_emb=local.flatten(0, 1), ref_labels=images.repeat_interleave(4)
        ),
        *(3 * unit(5), 3 * unit(5, 4, seed=1)),
    )


def test_parts_are_the_positions_that_have_seen_a_patch_at_each_blocks_exit(model, tokens):
    term = DIM(DIMConfig(blocks=(1, 3)), model, DATA)
    represented = term.represent(model, tokens)
    x, exits = model.embed(tokens), []
    for block in model.encoder.blocks:
        x = block(x)
        exits.append(F.layer_norm(x, (16,))[:, 1:])
    features = model.pool(model.encode(tokens))
    torch.testing.assert_close(represented, torch.cat([features[:, None], exits[0], exits[2]], 1))
    torch.testing.assert_close(term.pooled(represented), features)


def test_before_the_first_block_a_part_is_a_patch_and_its_place(model, tokens):
    term = DIM(DIMConfig(blocks=(0,)), model, DATA)
    parts = term.represent(model, tokens)[:, 1:]
    torch.testing.assert_close(parts, F.layer_norm(model.embed(tokens), (16,))[:, 1:])
    other = tokens.clone()
    other[:, 1] = (other[:, 1] + 1) % 5
    changed = (term.represent(model, other)[:, 1:] != parts).any(2)  # (6, 4)
    assert torch.equal(changed, torch.tensor([False, True, False, False]).expand(6, -1))


@pytest.mark.parametrize(
    ("across", "blocks", "pairs"), [(False, (0,), [(0, 0), (1, 1)]), (True, (1, 2), [(0, 1), (1, 0)])]
)
def test_features_know_the_parts_of_their_own_view_or_of_the_other(model, tokens, across, blocks, pairs):
    term = DIM(DIMConfig(across_views=across, blocks=blocks, temperature=0.3), model, DATA)
    represented = term.represent(model, tokens).unflatten(0, (2, 3)).detach().requires_grad_()
    z = model.project(term.pooled(represented).flatten(0, 1)).unflatten(0, (2, 3))
    loss, _ = term(Batch(represented, z, torch.arange(3), torch.Generator()))
    losses = []
    for number, head in enumerate(term.heads):
        local = F.normalize(head(represented[:, :, 1 + 4 * number : 5 + 4 * number]), dim=-1)
        losses += [local_global(z[v], local[w], 0.3) for v, w in pairs]
    torch.testing.assert_close(loss, sum(losses) / len(losses))
    loss.backward()
    assert represented.grad.abs().sum(-1).min() > 0  # features and every part
    assert all(p.grad.abs().sum() > 0 for p in term.heads.parameters())


def test_what_cannot_be_is_refused(model):
    with pytest.raises(ConfigError, match=r"contrastive\.blocks: 4, but the encoder has 3 blocks"):
        build_objective(VariantConfig(0, 1, contrastive=DIMConfig(blocks=(1, 4))), model, DATA, 0)
    with pytest.raises(ValueError, match=r"dim needs the encoder.s positions, .*beside a generative term"):
        VariantConfig(1, 1, contrastive=DIMConfig())
    for blocks in ((), (-1, 1), (2, 1), (1, 1)):
        with pytest.raises(ValueError, match="blocks must list numbers from 0 in ascending order"):
            DIMConfig(blocks=blocks)
    for blocks in ((1,), (0, 1)):
        with pytest.raises(ValueError, match=r"behind a block all parts .* Set blocks to \[0\]"):
            DIMConfig(across_views=False, blocks=blocks)
