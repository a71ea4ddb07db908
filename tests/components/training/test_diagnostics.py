import math

import pytest
import torch
from torch.nn import functional as F

from components.training.diagnostics import feature_health, flat_gradient, gradient_conflict, knn_accuracy


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def conflict(losses: dict[str, torch.Tensor], shared: list[torch.Tensor]) -> dict[str, float]:
    return gradient_conflict({name: flat_gradient(loss, shared) for name, loss in losses.items()})


def test_norms_and_cosine_of_two_gradients_known_by_hand():
    x, y = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor(3.0, requires_grad=True)
    losses = {"generative": (x * torch.tensor([3.0, 0.0])).sum() + 4 * y, "contrastive": -2 * x[0] + 0 * x[1] + 0 * y}
    found = conflict(losses, [x, y])  # gradients (3, 0, 4) and (−2, 0, 0)
    assert found["gradient_norm/generative"] == pytest.approx(5)
    assert found["gradient_norm/contrastive"] == pytest.approx(2)
    assert found["gradient_cosine"] == pytest.approx(-0.6)


def test_it_agrees_with_separate_backward_passes_and_leaves_no_gradient():
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    x = noise(10, 4)

    def losses() -> dict[str, torch.Tensor]:
        out = network(x)
        return {"generative": out.square().mean(), "contrastive": out.logsumexp(1).mean()}

    flat = {}
    for name in losses():
        network.zero_grad()
        losses()[name].backward()
        flat[name] = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    network.zero_grad()
    found = conflict({name: losses()[name] for name in flat}, list(network.parameters()))
    for name, gradient in flat.items():
        assert found[f"gradient_norm/{name}"] == pytest.approx(float(gradient.norm()), rel=1e-5)
    assert found["gradient_cosine"] == pytest.approx(float(F.cosine_similarity(*flat.values(), dim=0)), rel=1e-5)
    assert all(p.grad is None for p in network.parameters())


def test_a_parameter_that_one_term_does_not_touch_counts_as_zeros():
    x, y = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    found = conflict({"generative": y.sum() + x.sum(), "contrastive": y.sum()}, [x, y])
    assert found["gradient_cosine"] == pytest.approx(3 / math.sqrt(5 * 3))


def test_one_term_has_no_cosine():
    x = torch.ones(2, requires_grad=True)
    assert set(conflict({"generative": x.sum()}, [x])) == {"gradient_norm/generative"}


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_counts_equally_strong_directions(rank):
    directions = torch.linalg.qr(noise(32, 8))[0][:, :rank]
    samples = torch.linalg.qr(noise(200, rank) - noise(200, rank).mean(0))[0]  # orthonormal columns
    features = samples - samples.mean(0)
    features = torch.linalg.qr(features)[0] @ directions.T + 5  # a common offset does not count
    assert feature_health(features)["effective_rank"] == pytest.approx(rank, rel=0.02)


def test_effective_rank_of_known_singular_values():
    left = torch.linalg.qr(noise(50, 3) - noise(50, 3).mean(0))[0]
    left = left - left.mean(0)
    left = torch.linalg.qr(left)[0]
    features = left @ torch.diag(torch.tensor([0.5, 0.25, 0.25])) @ torch.linalg.qr(noise(3, 3, seed=1))[0]
    entropy = -(0.5 * math.log(0.5) + 0.5 * math.log(0.25))
    assert feature_health(features)["effective_rank"] == pytest.approx(math.exp(entropy), rel=0.01)


def test_spread_features_have_std_one_and_collapsed_ones_zero():
    assert feature_health(noise(4000, 16))["feature_std"] == pytest.approx(1, abs=0.02)
    collapsed = feature_health(torch.ones(100, 16))
    assert collapsed["feature_std"] == pytest.approx(0, abs=1e-6)
    assert collapsed["effective_rank"] == pytest.approx(1)


@pytest.mark.parametrize("k", [1, 5, 200])
def test_knn_agrees_with_scikit_learn(k):
    from sklearn.neighbors import KNeighborsClassifier

    means = noise(4, 6, seed=1)
    bank_labels, labels = torch.arange(100) % 4, torch.arange(60) % 4
    bank, queries = means[bank_labels] + noise(100, 6, seed=2), means[labels] + noise(60, 6, seed=3)
    reference = KNeighborsClassifier(min(k, 100), metric="cosine").fit(bank.numpy(), bank_labels.numpy())
    expected = reference.score(queries.numpy(), labels.numpy())
    assert knn_accuracy(bank, bank_labels, queries, labels, k) == pytest.approx(expected)
