"""Any contrastive term goes with any generative one, or says why it does not."""

from dataclasses import replace
from itertools import cycle, product
from typing import Any

import numpy as np
import pytest
import torch

from components.data.config import AugmentationConfig
from components.objectives.base import TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.objective import build_objective
from components.objectives.registry import CONTRASTIVE, GENERATIVE
from components.training.config import TrainingConfig
from components.training.data import step_generator
from components.training.distributed import Ranks
from components.training.loop import execution_of
from components.training.step import backward
from components.training.views import draw_views

DATA = TrainingSet(np.zeros((4096, 8, 8, 3), np.uint8), np.arange(4096) % 3)
TRAINING = TrainingConfig(1, 8, 0.1, warmup_steps=0, device="cpu", precision="float32")
CPU = torch.device("cpu")
ALONE = [config for config in CONTRASTIVE.values() if config.alone]
TOGETHER = [config for config in CONTRASTIVE.values() if not config.alone]
DEFAULT = VariantConfig(1, 1)
FIRST, FIRST_GENERATIVE = type(DEFAULT.contrastive), type(DEFAULT.generative)
OTHERS = [config for config in TOGETHER if config is not FIRST]
OTHER_GENERATIVE = [config for config in GENERATIVE.values() if config is not FIRST_GENERATIVE]
SOME = {
    *product(TOGETHER, [FIRST_GENERATIVE]),  # each with the default of the other kind,
    *product([FIRST], OTHER_GENERATIVE),
    *zip(OTHERS, cycle(OTHER_GENERATIVE), strict=False),  # and with one that is not
}


def name(config: Any) -> str:
    return str(config.name)


def pair(contrastive: Any, generative: Any) -> Any:
    marks = [] if (contrastive, generative) in SOME else [pytest.mark.weekly]
    return pytest.param(contrastive, generative, marks=marks, id=f"{contrastive.name}-{generative.name}")


def test_the_pairs_of_every_day_hold_every_term():
    for terms, used in zip((TOGETHER, GENERATIVE.values()), zip(*SOME, strict=True), strict=True):
        assert all(used.count(term) >= 2 for term in terms)  # beside the default, and beside another


def test_few_terms_are_trained_alone():
    assert {config.name for config in ALONE} == {"loco", "cpc", "dim", "relative_position"}


@pytest.mark.parametrize("generative", GENERATIVE.values(), ids=name)
@pytest.mark.parametrize("contrastive", ALONE, ids=name)
def test_a_term_that_is_trained_alone_says_why(contrastive, generative):
    with pytest.raises(ValueError, match=rf"^{contrastive.name} {contrastive.alone}: set w_gen to 0$"):
        VariantConfig(1, 1, contrastive=contrastive(), generative=generative(scored_views=1))


@pytest.mark.parametrize(
    ("contrastive", "generative"), [pair(*each) for each in product(TOGETHER, GENERATIVE.values())]
)
def test_two_terms_train_the_encoder_and_what_they_own(make_model, moved, coloured_stripes, contrastive, generative):
    variant = VariantConfig(0.7, 1.3, contrastive=contrastive(), generative=generative(scored_views=1))
    model = make_model(2, 8, 8, 3, generative=variant.generative, encoder_layers=1, decoder_layers=1).train()
    objective = moved(build_objective(variant, model, DATA, 0))
    generator = step_generator(0, 0, CPU)
    pixels = torch.from_numpy(coloured_stripes[0][:8])
    views = draw_views(model, objective, pixels, 2, AugmentationConfig(translate=0.2), generator, Ranks())
    execution = replace(execution_of(model, objective, TRAINING, CPU, Ranks()), passes=2)
    encoder = list(model.encoder.parameters())
    found = backward(model, objective, views, torch.arange(8), generator, execution, encoder)
    objective.after_step(model, 0.5)
    assert set(found.terms) == {"generative", "contrastive"}
    for gradient in found.gradients.values():
        assert gradient.isfinite().all()
        assert gradient.any()
    whole = torch.cat([p.grad.flatten() for p in encoder if p.grad is not None])
    torch.testing.assert_close(whole, sum(found.gradients.values()), atol=1e-5, rtol=1e-4)
    owned = {name: p.grad for name, p in objective.named_parameters() if p.requires_grad}
    assert [name for name, gradient in owned.items() if gradient is None] == []
