"""The gradient of a step is that of one pass over the whole batch, whatever it is spread over."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from components.data.config import AugmentationConfig
from components.model.gcrl import GCRL
from components.objectives import registry
from components.objectives.base import TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.contrastive.nt_xent import NTXentConfig
from components.objectives.contrastive.nt_xent.term import nt_xent
from components.objectives.objective import build_objective
from components.training.config import TrainingConfig
from components.training.data import step_generator
from components.training.distributed import Ranks
from components.training.loop import execution_of
from components.training.step import StepResult, backward
from components.training.views import Views, draw_views

TRAINING = TrainingConfig(1, 2, 0.1, warmup_steps=0, device="cpu", precision="float32")
DATA = TrainingSet(np.zeros((4096, 8, 8, 1), np.uint8), np.arange(4096) % 3)
HYBRID = VariantConfig(0.7, 1.3, contrastive=NTXentConfig(temperature=0.3))


@pytest.fixture
def model(make_model) -> GCRL:
    return make_model(2, 8, 8).train()


def views_of(model: GCRL, pixels: Tensor, views: int = 2, variant: VariantConfig = HYBRID) -> Views:
    augmentation, generator = AugmentationConfig(translate=0.2, brightness=0.3), step_generator(0, 0, pixels.device)
    objective = build_objective(variant, model, DATA, 0)
    return draw_views(model, objective, pixels, views, augmentation, generator, Ranks())


def find(
    model: GCRL, drawn: Views, variant: VariantConfig = HYBRID, passes: int = 1, watched: Sequence[Tensor] = ()
) -> StepResult:
    """What a step finds on its views; leaves the gradients."""
    images = torch.arange(drawn.tokens.shape[1])
    objective = build_objective(variant, model, DATA, 0)
    execution = replace(execution_of(model, objective, TRAINING, torch.device("cpu"), Ranks()), passes=passes)
    return backward(model, objective, drawn, images, torch.Generator(), execution, watched)


def gradients(model: GCRL) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name in found:
        # CPC's images hold equal patches, and rounding decides which of them is the likeliest
        atol = 0.01 if name == "prediction_accuracy" else 1e-4
        torch.testing.assert_close(found[name], expected[name], atol=atol, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("views", [2, 3])
def test_one_pass_is_the_plain_gradient_of_both_losses(model, stripes, views):
    drawn = views_of(model, torch.from_numpy(stripes[0][:12]), views)
    features, nll = model.represent(drawn.tokens.flatten(0, 1), drawn.condition.flatten(0, 1), likelihoods=24)
    losses = {
        "generative": 0.7 * nll.mean(),  # of the first two views
        "contrastive": 1.3 * nt_xent(model.project(features), 0.3, views),
    }
    sum(losses.values()).backward()
    expected = gradients(model)
    found = find(model, drawn)
    assert_close(gradients(model), expected)
    assert found.terms.keys() == losses.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(found.terms[name], loss.detach())
    torch.testing.assert_close(found.metrics["nll_nats_per_token"], losses["generative"].detach() / 0.7)


FEW = {"clusters": 4}  # of twelve images
CONTRASTIVE = [
    VariantConfig(0, 1, contrastive=config(**FEW if hasattr(config, "clusters") else {}))
    for config in registry.CONTRASTIVE.values()
]
GENERATIVE = [VariantConfig(0.7, 1.3, generative=config()) for config in registry.GENERATIVE.values()]
VARIANTS = {
    "gen": VariantConfig(1, 0),
    **{variant.generative.name: variant for variant in GENERATIVE},
    **{variant.contrastive.name: variant for variant in CONTRASTIVE},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize(("views", "passes"), [(2, 2), (2, 12), (3, 4)])
def test_many_passes_find_what_one_finds(make_model, stripes, coloured_stripes, variant, views, passes):
    """Negatives and batch statistics of the whole batch included; image by image, too."""
    images, _ = coloured_stripes if variant.contrastive.name == "cmc" else stripes
    terms = {"w_gen": variant.w_gen, "w_con": variant.w_con, "generative": variant.generative}
    model = make_model(2, 8, 8, images.shape[3], **terms).train()
    drawn = views_of(model, torch.from_numpy(images[:12]), views, variant)
    watched = list(model.encoder.parameters())
    before = {name: value.clone() for name, value in model.named_buffers()}
    one = find(model, drawn, variant, watched=watched)
    expected, statistics = gradients(model), {name: value.clone() for name, value in model.named_buffers()}
    model.load_state_dict(before, strict=False)
    many = find(model, drawn, variant, passes, watched)
    assert_close(gradients(model), expected)
    for field in ("terms", "metrics", "gradients"):
        assert_close(getattr(many, field), getattr(one, field))
    for name, value in model.named_buffers():
        torch.testing.assert_close(value, statistics[name])


def test_accumulated_gradients_without_the_cache_would_be_another_losss(model, stripes):
    """That what is tested above is no matter of course: each part contrasted with itself alone is not the same."""
    drawn = views_of(model, torch.from_numpy(stripes[0][:12]))
    find(model, drawn)
    expected = gradients(model)
    parts = []
    for part in drawn.split(2):
        find(model, part)
        parts.append(gradients(model))
    mean = {name: (parts[0][name] + parts[1][name]) / 2 for name in expected}
    with pytest.raises(AssertionError):
        assert_close(mean, expected)


def test_scored_patches_go_with_their_views(model, stripes):
    """Whichever part of the batch an image is in, the patches that were drawn for it are scored."""
    drawn = views_of(model, torch.from_numpy(stripes[0][:12]), views=3)
    scored = torch.rand(2, 12, 16, generator=torch.Generator().manual_seed(0)).argsort(2)[:, :, :5]
    drawn = replace(drawn, drawn=scored)
    nll = model(drawn.tokens[:2].flatten(0, 1), drawn.condition[:2].flatten(0, 1)).nll
    expected = nll.unflatten(0, (2, 12)).gather(2, scored[..., None].expand(-1, -1, -1, 4)).mean()
    for passes in (1, 3):
        found = find(model, drawn, passes=passes)
        torch.testing.assert_close(found.metrics["nll_nats_per_token"], expected.detach())


def test_watched_gradients_leave_the_step_as_it_is(model, stripes):
    drawn = views_of(model, torch.from_numpy(stripes[0][:12]))
    find(model, drawn)
    expected = gradients(model)
    found = find(model, drawn, watched=list(model.encoder.parameters()))
    assert all(torch.equal(gradient, expected[name]) for name, gradient in gradients(model).items())
    whole = torch.cat([p.grad.flatten() for p in model.encoder.parameters() if p.grad is not None])
    torch.testing.assert_close(found.gradients["generative"] + found.gradients["contrastive"], whole)
