from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.trainee import LEARNING_RATE, LIKELIHOOD, SIMCLR, VARIANTS, Trainee, model_config, training_config
from components.model.build import Architecture, build
from components.model.config import ModelConfig
from components.training.loop import pretrain
from components.training.validation import PretrainData
from pipelines.config.params import load_params

MODEL = ModelConfig(2, 16, 2, 2, 1, 8, 16, 8, likelihood="logistic_mixture")
PALETTE = np.zeros((1, 3), np.uint8)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)


def test_the_recipe_is_the_preset_s():
    preset = load_params(Path(__file__).parents[2] / "presets" / "cifar10-cpu.yaml")
    assert preset.variants == VARIANTS
    assert preset.augmentation == SIMCLR
    assert preset.model == model_config(4, None)
    assert preset.model.likelihood == LIKELIHOOD
    ours = training_config(256)
    assert preset.training.learning_rate == LEARNING_RATE == ours.learning_rate
    assert (preset.training.optimizer, preset.training.weight_decay) == (ours.optimizer, ours.weight_decay)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_few_steps_at_a_time_train_what_a_run_trains(variant, images, tmp_path):
    training = training_config(4, steps=5, device="cpu")
    trainee = Trainee(images, PALETTE, MODEL, VARIANTS[variant], training)
    trainee.train(2)
    trainee.features(images)
    trainee.train(3)

    model = build(Architecture.of(MODEL, VARIANTS[variant], 4, PALETTE), PALETTE, seed=0)
    labelled = images, np.arange(12) % 2
    data = PretrainData(images, labelled, labelled)
    pretrain(model, data, VARIANTS[variant], training, SIMCLR, 0, tmp_path / "resume.pt", "key", lambda *_: None)
    found, expected = trainee.state.model.state_dict(), model.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    has_likelihood = trainee.nats_per_image(images) is not None
    assert has_likelihood == (VARIANTS[variant].w_gen > 0)


def test_operations_of_an_image_grow_with_what_is_scored(images):
    training = training_config(4, device="cpu")

    def flops(variant):
        return Trainee(images, PALETTE, MODEL, VARIANTS[variant], training).flops_per_image

    assert max(flops("contrastive"), flops("generative")) < flops("hybrid")
