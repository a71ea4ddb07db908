import numpy as np
import pytest
import torch
from pytorch_ood.detector import GEN, ReAct
from pytorch_ood.detector import EnergyBased as PublicEnergy
from pytorch_ood.detector import MaxLogit as PublicMaxLogit
from pytorch_ood.detector import ViM as PublicVim

from components.evaluation.ood.base import InDistribution
from components.evaluation.ood.detectors import react
from components.evaluation.ood.detectors.energy import Energy
from components.evaluation.ood.detectors.gen import Gen
from components.evaluation.ood.detectors.max_logit import MaxLogit
from components.evaluation.ood.detectors.msp import Msp
from components.evaluation.ood.detectors.react import React
from components.evaluation.ood.detectors.vim import Vim
from components.evaluation.probes.linear_probe import Labelled, LinearProbe


@pytest.fixture
def logits(fitting_data, queries):
    return torch.from_numpy(fitting_data.probe.logits(queries))


def test_functions_of_the_logits_are_the_public_librarys(fitting_data, queries, make_batch, logits):
    def score(detector):
        return detector.fit(fitting_data, 1).score(make_batch(queries))

    np.testing.assert_allclose(score(Energy), PublicEnergy.score(logits).numpy())
    np.testing.assert_allclose(score(MaxLogit), PublicMaxLogit.score(logits).numpy())
    np.testing.assert_allclose(score(Msp), -logits.softmax(dim=1).max(dim=1).values.log().numpy(), atol=1e-12)


def test_gen_is_the_public_librarys():
    logits = np.random.default_rng(0).normal(size=(50, 300))  # more classes than it looks at
    public = GEN.score(torch.from_numpy(logits), gamma=0.1, M=100).numpy() * 100  # a mean there, a sum in the paper
    np.testing.assert_allclose(Gen.of_logits(logits), public)
    few = logits[:, :10]
    np.testing.assert_allclose(Gen.of_logits(few), GEN.score(torch.from_numpy(few), gamma=0.1).numpy() * 10)


def test_saturated_probabilities_are_told_apart(fitting_data, make_batch):
    confident = LinearProbe(np.array([[100.0], [0.0]]), np.zeros(2), temperature=1.0, l2=0.1)
    batch = make_batch(np.array([[2.0], [0.9], [0.5]]))
    for detector in (Msp, Gen):
        surest, sure, unsure = detector(confident).score(batch)
        assert surest < sure < unsure < 0.1
    exact = 2 * np.exp(-0.1 * np.array([200, 90, 50]))  # both classes contribute (p · (1 − p))^0.1, and 1 − p is 1
    np.testing.assert_allclose(Gen(confident).score(batch), exact)


def test_react_is_the_public_librarys(fitting_data, queries, make_batch, monkeypatch):
    monkeypatch.setattr(react, "ROWS_AT_MOST", 60_000)
    probe = fitting_data.probe
    weight, bias = torch.from_numpy(probe.weight), torch.from_numpy(probe.bias)
    public = ReAct(None, lambda x: x.double() @ weight.T + bias).fit_feature_maps(
        *map(torch.from_numpy, fitting_data.train)
    )
    expected = public.predict_feature_maps(torch.from_numpy(queries)).numpy()
    scores = React.fit(fitting_data, 1).score(make_batch(queries))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert not np.allclose(scores, Energy.fit(fitting_data, 1).score(make_batch(queries)))


def test_a_part_of_the_rows_gives_nearly_the_same_percentile(fitting_data, monkeypatch):
    exact = np.percentile(fitting_data.train.features, 90)
    assert React.fit(fitting_data, 1).ceiling == pytest.approx(exact, rel=1e-2)
    monkeypatch.setattr(react, "ROWS_AT_MOST", 60_000)
    assert React.fit(fitting_data, 1).ceiling == exact


@pytest.mark.parametrize("width", [4, 5])
def test_vim_is_the_public_librarys(width, make_batch):
    rng = np.random.default_rng(width)
    mixing = rng.normal(size=(width, width))
    train = (rng.normal(size=(2000, width)) @ mixing + 3).astype(np.float32)
    queries = (rng.normal(size=(50, width)) * 2).astype(np.float32)
    probe = LinearProbe(rng.normal(size=(3, width)), rng.normal(size=3), temperature=2.0, l2=0.1)
    weight, bias = torch.from_numpy(probe.weight), torch.from_numpy(probe.bias)
    public = PublicVim(None, d=width // 2, w=weight, b=bias).fit_features(torch.from_numpy(train), torch.zeros(2000))
    expected = public.predict_features(torch.from_numpy(queries)).numpy()
    data = InDistribution(Labelled(train, np.arange(2000) % 3), make_batch(train), probe)
    np.testing.assert_allclose(Vim.fit(data, 1).score(make_batch(queries)), expected, rtol=1e-3, atol=1e-3)


def test_vim_notices_what_the_probe_cannot(make_batch):
    """A feature that training never varied and the probe gives no weight to."""
    rng = np.random.default_rng(0)
    train = (rng.normal(size=(1000, 4)) * [5, 5, 0.1, 0.1]).astype(np.float32)
    probe = LinearProbe(np.array([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]]), np.zeros(2), temperature=1.0, l2=0.1)
    usual, odd = make_batch(train[:100]), make_batch(train[:100] + np.float32([0, 0, 0, 5]))
    data = InDistribution(Labelled(train, np.arange(1000) % 2), usual, probe)
    np.testing.assert_allclose(Energy(probe).score(odd), Energy(probe).score(usual))
    fitted = Vim.fit(data, 1)
    assert fitted.score(odd).min() > fitted.score(usual).max()
