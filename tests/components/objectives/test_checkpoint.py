import numpy as np
import pytest
import torch

from components.errors import UserError
from components.objectives.base import TrainingSet
from components.objectives.checkpoint import load_term, save_term
from components.objectives.generative.vae import VAEConfig
from components.objectives.generative.vqvae import VQVAEConfig
from components.objectives.registry import GENERATIVE

DATA = TrainingSet(np.zeros((4, 4, 4, 1), np.uint8))
OWNING = [config for config in GENERATIVE.values() if not config.exact]


@pytest.fixture
def model(make_model):
    return make_model(2, 4, w_gen=0)


@pytest.mark.parametrize("config", OWNING, ids=lambda config: config.name)
def test_what_was_saved_is_what_is_loaded(model, tmp_path, config):
    term = config.term()(config(), model, DATA)
    save_term(tmp_path / "term.safetensors", term)
    found = load_term(tmp_path / "term.safetensors", model)
    assert found.config == term.config
    assert not found.training
    assert list(found.state_dict()) == list(term.state_dict())
    assert all(torch.equal(value, term.state_dict()[name]) for name, value in found.state_dict().items())


def test_other_settings_than_the_defaults_come_along(model, tmp_path):
    config = VQVAEConfig(codebook_size=7, code_size=3)
    save_term(tmp_path / "term.safetensors", config.term()(config, model, DATA))
    found = load_term(tmp_path / "term.safetensors", model)
    assert found.config == config
    assert found.tokenize(model, torch.zeros(2, 4, 4, dtype=torch.long)).max() < 7


def test_a_file_that_is_not_of_this_model_is_told_in_one_line(model, make_model, tmp_path):
    place = tmp_path / "term.safetensors"
    with pytest.raises(UserError, match=r"term\.safetensors: not there\. Variants without an exact likelihood"):
        load_term(place, model)
    place.write_bytes(b"no such thing")
    with pytest.raises(UserError, match=r"term\.safetensors: not the term of this model"):
        load_term(place, model)
    save_term(place, VAEConfig.term()(VAEConfig(), make_model(2, 4, width=24, w_gen=0), DATA))
    with pytest.raises(UserError, match=r"not the term of this model \(.*size mismatch") as refused:
        load_term(place, model)
    assert "\n" not in str(refused.value)
