import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.objectives.adversarial.aae import AAEConfig
from components.objectives.adversarial.aae.term import AAE
from components.objectives.adversarial.bigan import BiGANConfig
from components.objectives.adversarial.bigan.term import BiGAN, scaled_pixels
from components.objectives.base import TrainingSet, features
from components.objectives.parts.game import fooled, found_out, squared_slope, told_apart

DATA = TrainingSet(np.zeros((4, 4, 4, 1), np.uint8))


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(2, 4, w_gen=0)


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(3, (6, 4, 4), generator=torch.Generator().manual_seed(0))


def gradients(loss: Tensor, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of what the loss moves."""
    found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {name: g for name, g in zip(parameters, found, strict=True) if g is not None}


def everything(model: nn.Module, term: nn.Module) -> dict[str, Tensor]:
    return {**{f"model.{n}": p for n, p in model.named_parameters()}, **dict(term.named_parameters())}


@pytest.fixture
def discriminator() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))


def test_the_losses_are_binary_cross_entropies(discriminator):
    real, fake = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    says_real, says_fake = discriminator(real), discriminator(fake)

    def bce(logits: Tensor, label: float) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, torch.full((5, 1), label), reduction="none")[:, 0]

    torch.testing.assert_close(told_apart(discriminator, [real], [fake]), bce(says_real, 1.0) + bce(says_fake, 0.0))
    torch.testing.assert_close(fooled(discriminator, [fake]), bce(says_fake, 1.0))
    torch.testing.assert_close(found_out(discriminator, [real]), bce(says_real, 0.0))


def test_the_squared_slope_is_that_of_autograd_between_the_inputs(discriminator):
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, 4, 3, generator=generator)
    place = torch.tensor([-9.0, 0.0, 0.6744898, 9.0])  # at the real end, in the middle, at three quarters, at the fake
    at = torch.lerp(real, fake, torch.tensor([0, 0.5, 0.75, 1])[:, None]).requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(at).sum(), [at])
    with torch.no_grad():
        noise = torch.randn(20_000, 4, 3, generator=generator)
        found = torch.stack([squared_slope(discriminator, [real], [fake], place, [step]) for step in noise])
    torch.testing.assert_close(found.mean(0), slope.square().sum(1), rtol=0.05, atol=1e-3)


def test_each_part_of_an_aae_moves_by_its_own_loss(model, moved, tokens):
    term = moved(AAE(AAEConfig(latent_size=5, adversarial_weight=0.3, gradient_penalty=0.7), model, DATA))
    drawn = term.draw(1, 6, torch.Generator().manual_seed(0))[0]
    loss, metrics = term(term.represent(model, tokens, torch.zeros(6, 1), drawn, 6)[1])
    found = gradients(loss, everything(model, term))

    judge, (place, prior, step) = term.discriminator, drawn.split([1, 5, 5], 1)
    code = term.code(features(model, tokens))
    reconstruction = term.decoder.nll(code, tokens).mean()
    discriminator = F.softplus(-judge(prior)).mean() + F.softplus(judge(code)).mean()
    slope = squared_slope(judge, [prior], [code], place, [step]).mean()
    fooling = F.softplus(-judge(code)).mean()
    own = {n: p for n, p in everything(model, term).items() if n.startswith("discriminator")}
    rest = {n: p for n, p in everything(model, term).items() if n not in own}
    expected = gradients(reconstruction + 0.3 * fooling, rest) | gradients(0.3 * (discriminator + 0.7 * slope), own)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(metrics["discriminator_loss"], discriminator.detach())
    torch.testing.assert_close(metrics["fooling_loss"], fooling.detach())


def test_each_part_of_a_bigan_moves_by_its_own_loss(model, moved, tokens):
    term = moved(BiGAN(BiGANConfig(latent_size=5, gradient_penalty=0.7), model, DATA), 0.2)
    drawn = term.draw(1, 6, torch.Generator().manual_seed(0))[0]
    loss, metrics = term(term.represent(model, tokens, torch.zeros(6, 1), drawn, 6)[1])
    found = gradients(loss, everything(model, term))

    judge, (prior, place, *step) = term.discriminator, drawn.split([5, 1, 16, 5], 1)
    real = scaled_pixels(model, tokens), term.code(features(model, tokens))
    fake = term.generator(prior), prior
    discriminator = F.softplus(-judge(*real)).mean() + F.softplus(judge(*fake)).mean()
    slope = squared_slope(judge, real, fake, place, step).mean()
    fooling = F.softplus(judge(*real)).mean() + F.softplus(-judge(*fake)).mean()
    own = {n: p for n, p in everything(model, term).items() if n.startswith("discriminator")}
    rest = {n: p for n, p in everything(model, term).items() if n not in own}
    assert {name.split(".")[0] for name in rest if name in found} == {"model", "code", "generator"}
    expected = gradients(fooling, rest) | gradients(discriminator + 0.7 * slope, own)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(metrics["discriminator_loss"], discriminator.detach())
    torch.testing.assert_close(metrics["fooling_loss"], fooling.detach())


@pytest.mark.parametrize("likelihood", ["palette", "categorical", "logistic_mixture"])
def test_real_pixels_lie_on_the_generators_scale(make_model, likelihood):
    model = make_model(2, 4, 2, w_gen=0, likelihood=likelihood)
    images = torch.tensor([0.0, 1.0]).repeat(8).view(1, 1, 4, 4)
    pixels = scaled_pixels(model, model.tokenizer(images))
    assert pixels.shape == (1, 4, 4)
    assert set(pixels.unique().tolist()) == {-1, 1}
