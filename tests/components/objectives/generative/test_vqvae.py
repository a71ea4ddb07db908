import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from components.objectives.base import TrainingSet
from components.objectives.generative.vqvae import VQVAEConfig
from components.objectives.generative.vqvae.term import VQVAE

DATA = TrainingSet(np.zeros((4, 4, 4, 1), np.uint8))
CONFIG = VQVAEConfig(codebook_size=12, code_size=5, commitment_weight=0.25)


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(2, 4, w_gen=0)


@pytest.fixture
def term(model, moved):
    torch.manual_seed(0)
    return moved(VQVAE(CONFIG, model, DATA))


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(3, (6, 4, 4), generator=torch.Generator().manual_seed(0))


def found(term: VQVAE, model, tokens: Tensor) -> Tensor:
    return term.represent(model, tokens, torch.zeros(len(tokens), 1), None, len(tokens))[1]


def test_a_patch_gets_the_nearest_code(term, model, tokens):
    codebook = F.normalize(term.embedding.weight, dim=1)
    with torch.no_grad():
        vectors = term.vectors(model, model.encode(tokens))
        chosen = term.nearest(vectors)
    for vector, index in zip(vectors.flatten(0, 1), chosen.flatten(), strict=True):
        distances = [((vector - code) ** 2).sum().item() for code in codebook]
        assert distances[index] == pytest.approx(min(distances), abs=1e-6)
    assert len(chosen.unique()) > 2
    assert torch.equal(term.tokenize(model, tokens), chosen)


def test_the_losses_are_those_of_a_naive_loop(term, model, tokens):
    values = found(term, model, tokens)
    codebook = F.normalize(term.embedding.weight, dim=1)
    with torch.no_grad():
        vectors = term.vectors(model, model.encode(tokens))
        for n, image in enumerate(tokens):
            chosen = [codebook[(vector - codebook).square().sum(1).argmin()] for vector in vectors[n]]
            distance = sum(((v - c) ** 2).sum().item() for v, c in zip(vectors[n], chosen, strict=True)) / 4
            nll = term.decoder.nll(term.decoded(torch.stack(chosen))[None], image[None]).mean()
            torch.testing.assert_close(values[n], torch.tensor([nll.item(), distance / 4, distance / 4]))  # of 4 pixels
    loss, metrics = term(values)
    torch.testing.assert_close(loss, values[:, 0].mean() + 1.25 * values[:, 1].mean())
    torch.testing.assert_close(metrics["squared_distance_to_code"], values[:, 2].mean().detach())


def test_the_perplexity_is_that_of_the_codes_of_all_images(term, model, tokens):
    term.eval()
    indices = term.tokenize(model, tokens)
    share = torch.bincount(indices.flatten(), minlength=12) / 24
    expected = math.exp(-sum(p * math.log(p) for p in share.tolist() if p))
    _, metrics = term(found(term, model, tokens))
    assert metrics["codebook_perplexity"].item() == pytest.approx(expected, rel=1e-5)
    assert "codebook_perplexity" not in term.train()(found(term, model, tokens))[1]


def test_each_loss_moves_its_own_part(term, model, tokens):
    """The codebook follows the encoder and the encoder the codebook; the decoder's loss moves no code."""
    owners = {"codebook": [term.embedding.weight], "encoder": list(model.encoder.parameters()), "decoder": []}
    owners["decoder"] = [p for name, p in term.named_parameters() if name.startswith("decode")]
    moves = {}
    for column, loss in enumerate(("reconstruction", "follow", "commit")):
        for owner, parameters in owners.items():
            value = found(term, model, tokens)[:, column].mean()
            gradients = torch.autograd.grad(value, parameters, allow_unused=True)
            moves[loss, owner] = any(g is not None and g.abs().max() > 0 for g in gradients)
    assert {pair for pair, moved in moves.items() if moved} == {
        ("reconstruction", "encoder"),
        ("reconstruction", "decoder"),
        ("follow", "codebook"),
        ("commit", "encoder"),
    }


def test_the_decoders_gradient_is_copied_to_the_encoders_output(term, model, tokens):
    encoded = model.encode(tokens).detach()
    vectors = term.vectors(model, encoded)
    codes = term.codebook()[term.nearest(vectors)].detach().requires_grad_()
    (expected,) = torch.autograd.grad(term.decoder.nll(term.decoded(codes), tokens).mean(), [codes])
    (through,) = torch.autograd.grad(vectors, [term.encoded.weight], expected)
    (gradient,) = torch.autograd.grad(found(term, model, tokens)[:, 0].mean(), [term.encoded.weight])
    torch.testing.assert_close(gradient, through)


@pytest.mark.parametrize("likelihood", ["palette", "categorical", "logistic_mixture"])
def test_tokens_of_codes_are_the_likeliest_pixels_one_after_the_other(make_model, moved, likelihood):
    model = make_model(2, 4, 5, 1, w_gen=0, likelihood=likelihood)
    term = moved(VQVAE(CONFIG, model, DATA))
    indices = torch.tensor([[0, 1, 2, 3], [5, 5, 0, 9]])
    found = term.reconstruct(indices)
    assert torch.equal(found, term.reconstruct(indices))
    contexts = term.decoder.contexts(term.decoded(term.codebook()[indices]))
    for i in range(4):  # given those before, another value is never likelier
        index = (i,) if likelihood == "palette" else (i, 0)
        values = term.decoder.head.log_probabilities(contexts, found, index).argmax(-1)
        assert torch.equal(found.flatten(2)[..., i], values)
    assert len(found.unique()) > 1


@pytest.mark.trains
def test_trained_codes_are_tokens_that_images_come_back_from(make_model, stripes):
    """Half of the pixels are white, so any guess is right half of the time; rounding decides how far training gets."""
    images = torch.from_numpy((stripes[0][:24] > 0) * np.float32(1)).permute(0, 3, 1, 2)
    model = make_model(2, 8, 2, w_gen=0, fresh=True)
    tokens = model.tokenizer(images)
    torch.manual_seed(0)
    term = VQVAE(VQVAEConfig(codebook_size=32, code_size=8), model, DATA)

    def share_restored() -> float:
        return (term.reconstruct(term.tokenize(model, tokens)) == tokens).float().mean().item()

    assert share_restored() < 0.6
    optimizer = torch.optim.Adam([*model.parameters(), *term.parameters()], lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        term(found(term, model, tokens))[0].backward()
        optimizer.step()
    assert term.tokenize(model, tokens).shape == (24, 16)
    assert term.reconstruct(term.tokenize(model, tokens)).shape == tokens.shape
    assert share_restored() > 0.75  # five seeds on three kinds of processor gave 0.87 and more
