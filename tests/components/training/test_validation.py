import numpy as np
import pytest
import torch

from components.model.tokens import to_unit
from components.objectives.base import TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.generative.autoregressive import AutoregressiveConfig
from components.objectives.generative.masked import MaskedConfig
from components.objectives.objective import build_objective
from components.training import validation
from components.training.validation import PretrainData, evaluate, validate

CPU = torch.device("cpu")


def test_the_quick_look_sees_every_class(make_model, monkeypatch):
    """Splits may be sorted by class: the first images alone would be of one class."""
    monkeypatch.setattr(validation, "QUICK_LOOK", 50)
    labels = np.arange(200) // 50
    images = np.broadcast_to(80 * labels.astype(np.uint8)[:, None, None, None], (200, 8, 8, 1))  # a grey level a class
    data = PretrainData(images, (images, labels), (images[::-1], labels[::-1]))
    model = make_model(2, 8, 8, fresh=True)
    assert evaluate(model, data, CPU)["val/knn_accuracy"] > 0.9


def test_a_model_without_a_decoder_has_no_likelihood(make_model, stripes):
    images, labels = stripes
    data = PretrainData(images, (images, labels), (images[:40], labels[:40]))
    assert set(evaluate(make_model(2, 8, 8, w_gen=0), data, CPU)) == {
        "val/knn_accuracy", "val/feature_std", "val/effective_rank"
    }  # fmt: skip


def test_a_loss_that_is_no_likelihood_is_looked_at_too(make_model, stripes, monkeypatch):
    """Of all validation images, batch by batch, unweighted; with the same masks each time."""
    images, labels = stripes
    data = PretrainData(images, (images, labels), (images[:40], labels[:40]))
    variant = VariantConfig(0.5, 1, generative=MaskedConfig())
    model = make_model(2, 8, 8, generative=variant.generative)
    objective = build_objective(variant, model, TrainingSet(images), 0)
    found = validate(model, objective, data, CPU)
    assert found == validate(model, objective, data, CPU)
    assert objective.generative.training
    tokens = model.tokenizer(to_unit(torch.from_numpy(images[:40])))
    drawn = objective.generative.draw(1, 40, torch.Generator().manual_seed(0))[0]
    with torch.no_grad():
        expected = objective.generative.values(model, tokens, torch.empty(0), drawn).mean().item()
    assert found == {"val/generative_loss": pytest.approx(expected, rel=1e-5)}
    monkeypatch.setattr(validation, "BATCH", 16)
    assert validate(model, objective, data, CPU)["val/generative_loss"] == pytest.approx(expected, rel=0.2)


def test_a_likelihood_is_looked_at_once(make_model, stripes):
    images, labels = stripes
    data = PretrainData(images, (images, labels), (images[:40], labels[:40]))
    for variant in (VariantConfig(1, 1, generative=AutoregressiveConfig()), VariantConfig(0, 1)):
        model = make_model(2, 8, 8, w_gen=variant.w_gen)
        assert validate(model, build_objective(variant, model, TrainingSet(images), 0), data, CPU) == {}
