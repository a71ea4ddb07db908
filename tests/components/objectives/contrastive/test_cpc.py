import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.errors import ConfigError
from components.objectives.base import Batch, TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.contrastive.cpc import CPCConfig
from components.objectives.contrastive.cpc.term import CPC, cpc
from components.objectives.objective import build_objective

DATA = TrainingSet(np.zeros((5, 4, 4, 1), np.uint8))


@pytest.fixture
def model(make_model):
    return make_model(2, 4, 5, w_gen=0)


@given(st.integers(1, 2), st.integers(1, 3), st.integers(2, 5), st.integers(1, 12), st.data())
def test_it_equals_a_naive_loop(views, images, patches, number, data):
    step, seed = data.draw(st.integers(1, patches - 1)), data.draw(st.integers(0, 999))
    generator = torch.Generator().manual_seed(seed)
    predictions = torch.randn(views, images, patches + 1, 3, generator=generator)
    latents = torch.randn(views, images, patches, 3, generator=generator)
    negatives = torch.randint(views * images * patches, (number,), generator=generator)
    losses, right = [], []
    for v in range(views):
        for i in range(images):
            for t in range(1, patches - step + 1):  # having seen t patches
                target = (v * images + i) * patches + t + step - 1
                match = float(predictions[v, i, t] @ latents.flatten(0, 2)[target])
                others = [n for n in negatives.tolist() if n != target]
                scores = [float(predictions[v, i, t] @ latents.flatten(0, 2)[n]) for n in others]
                losses.append(-math.log(math.exp(match) / (math.exp(match) + sum(map(math.exp, scores)))))
                right.append(all(match > score for score in scores))
    loss, accuracy = cpc(predictions, latents, step, negatives)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-4, abs=1e-6)
    assert accuracy.item() == pytest.approx(sum(right) / len(right))


def test_loss_and_gradient_equal_the_public_librarys(agree):
    from pytorch_metric_learning.distances import DotProductSimilarity
    from pytorch_metric_learning.losses import NTXentLoss

    generator = torch.Generator().manual_seed(0)
    predictions, latents = torch.randn(2, 3, 5, 6, generator=generator), torch.randn(2, 3, 4, 6, generator=generator)
    negatives = torch.randint(24, (9,), generator=generator)
    library = NTXentLoss(1.0, distance=DotProductSimilarity(normalize_embeddings=False))
    ahead = torch.arange(24).view(2, 3, 4)[:, :, 2:].flatten()  # what is predicted two steps ahead, of all latents
    other, which = (negatives != ahead[:, None]).nonzero(as_tuple=True)
    pairs = torch.arange(12), ahead, other, negatives[which]
    agree(
        lambda p, z: cpc(p, z, 2, negatives)[0],
        lambda p, z: library(p[:, :, 1:3].flatten(0, 2), indices_tuple=pairs, ref_emb=z.flatten(0, 2)),
        *(predictions, latents),
    )


def test_no_prediction_reads_the_patch_it_predicts_or_a_later_one(model):
    """Position t has seen the patches before t: changing patch t and all behind leaves its context as it is."""
    term = CPC(CPCConfig(prediction_steps=1), model, DATA)
    tokens = torch.randint(5, (1, 4, 4), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = term.represent(model, tokens)
        for t in range(4):
            other = tokens.clone()
            other[:, t:] = (other[:, t:] + 1) % 5
            changed = term.represent(model, other)
            torch.testing.assert_close(changed[:, : t + 1], whole[:, : t + 1])
            assert not torch.allclose(changed[:, t + 1], whole[:, t + 1])
            assert not torch.allclose(changed[:, 5 + t], whole[:, 5 + t])  # the patch's own embedding


def test_the_features_are_the_models(model):
    tokens = torch.randint(5, (6, 4, 4), generator=torch.Generator().manual_seed(0))
    term = CPC(CPCConfig(prediction_steps=1), model, DATA)
    represented = term.represent(model, tokens).unflatten(0, (2, 3))
    assert represented.shape == (2, 3, 5 + 4, 16)
    torch.testing.assert_close(term.pooled(represented).flatten(0, 1), model.pool(model.encode(tokens)))
    assert torch.equal(represented[..., 5:, :].flatten(0, 1), model.embed_patches(tokens))


def test_embeddings_do_not_tell_where_a_patch_lies(model):
    """Else the place alone would tell what is to be predicted from the negatives."""
    same = torch.full((1, 4, 4), 3)
    assert model.embed_patches(same).unique(dim=1).shape[1] == 1
    assert model.embed(same).unique(dim=1).shape[1] == 5


def test_the_loss_is_the_mean_over_the_steps_and_trains_contexts_embeddings_and_maps(model):
    term = CPC(CPCConfig(prediction_steps=3, negatives=20), model, DATA)
    features = torch.randn(2, 3, 9, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss, metrics = term(Batch(features, features, torch.arange(3), torch.Generator().manual_seed(7)))
    negatives = torch.randint(24, (20,), generator=torch.Generator().manual_seed(7))
    contexts, latents = features[:, :, :5], features[:, :, 5:]
    found = [cpc(contexts @ term.predictors[k - 1].weight.T, latents, k, negatives) for k in (1, 2, 3)]
    torch.testing.assert_close(loss, sum(each for each, _ in found) / 3)
    torch.testing.assert_close(metrics["prediction_accuracy"], sum(each for _, each in found) / 3)
    loss.backward()
    reached = features.grad.abs().sum((0, 1, 3)) > 0
    assert reached.tolist() == [False, True, True, True, False, True, True, True, True]  # not start, not the last
    assert all(predictor.weight.grad.abs().sum() > 0 for predictor in term.predictors)


def test_what_cannot_be_is_refused(model):
    with pytest.raises(ConfigError, match=r"prediction_steps: 4, but an image has 4 patches: the last lies 3 ahead"):
        build_objective(VariantConfig(0, 1, contrastive=CPCConfig(prediction_steps=4)), model, DATA, 0)
    with pytest.raises(ValueError, match=r"cpc needs the encoder.s positions, .*beside a generative term"):
        VariantConfig(1, 1, contrastive=CPCConfig())
    with pytest.raises(ValueError, match="prediction_steps must be positive"):
        CPCConfig(prediction_steps=0)
