"""What all generative terms with a latent code have in common."""

import numpy as np
import pytest
import torch
from torch import Tensor

from components.model.gcrl import GCRL
from components.objectives.adversarial.aae import AAEConfig
from components.objectives.adversarial.bigan import BiGANConfig
from components.objectives.base import TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.generative.vae import VAEConfig
from components.objectives.generative.vqvae import VQVAEConfig
from components.objectives.objective import Objective, build_objective

DATA = TrainingSet(np.zeros((4, 4, 4, 1), np.uint8))
TERMS = (VAEConfig, VQVAEConfig, AAEConfig, BiGANConfig)
every_term = pytest.mark.parametrize("config", TERMS, ids=lambda config: config.name)


def given(objective: Objective, model: GCRL, scored: int = 6) -> tuple[Tensor, Tensor]:
    """Features and values of six views."""
    generator = torch.Generator().manual_seed(0)
    channels = [model.channels] if model.embedding is None else []
    tokens = torch.randint(3, (6, 4, 4, *channels), generator=generator)
    drawn = objective.draw(1, scored, generator)
    found = objective.represent(model, tokens, torch.zeros(scored, 1), None if drawn is None else drawn[0], scored)
    assert found[1] is not None
    return found[0], found[1]


@every_term
def test_what_it_owns_begins_by_the_seed_and_is_none_of_the_models(make_model, config):
    variant, model = VariantConfig(1, 0, generative=config()), make_model(2, 4, w_gen=0)
    names = list(model.state_dict())
    first, again, other = (build_objective(variant, model, DATA, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())
    assert list(model.state_dict()) == names


@every_term
@pytest.mark.parametrize("likelihood", ["palette", "categorical", "logistic_mixture"])
def test_the_loss_trains_the_encoder_and_all_that_is_owned(make_model, moved, config, likelihood):
    """In a hybrid too, whose features are the encoder's."""
    model = make_model(2, 4, channels=3, w_gen=0, likelihood=likelihood)
    objective = build_objective(VariantConfig(1, 1, generative=config()), model, DATA, 0)
    moved(objective)
    features, values = given(objective, model, scored=4)
    assert features.shape == (6, 16)
    assert len(values) == 4
    loss, metrics = objective.generate(values)
    loss.backward()
    trained = [p for name, p in model.named_parameters() if not name.startswith("projection")]
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in trained)
    owned = dict(objective.named_parameters())
    assert [name for name, p in owned.items() if p.grad is None or not p.grad.any()] == []
    assert metrics["generative_loss"] == loss
    assert not any(value.requires_grad for value in metrics.values())


@every_term
def test_without_a_contrast_the_values_are_the_same(make_model, moved, config):
    model = make_model(2, 4)
    both, alone = (build_objective(VariantConfig(1, w, generative=config()), model, DATA, 0) for w in (1, 0))
    moved(both.generative)
    moved(alone.generative)
    torch.testing.assert_close(given(both, model)[1], given(alone, model)[1])
