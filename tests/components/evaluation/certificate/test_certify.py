import json
import math

import numpy as np
import pytest
import torch

from components.data.config import AugmentationConfig
from components.errors import UserError
from components.evaluation.certificate import certify as module
from components.evaluation.certificate import random_head
from components.evaluation.certificate.certify import certify, require_disjoint, some_images, view_features
from components.evaluation.certificate.pac_bayes import catoni, complexity, kl_inverse
from components.evaluation.config import CertificateConfig
from components.model.encode import encode_images
from components.plotting.certificate import certificate_curves

pytestmark = pytest.mark.trains

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(random_head, "PRIOR_STEPS", 40)
    monkeypatch.setattr(random_head, "POSTERIOR_STEPS", 20)
    monkeypatch.setattr(module, "PRIOR_STDS", (0.1, 0.3))
    monkeypatch.setattr(module, "TRADE_OFFS", (0.5, 2.0))
    monkeypatch.setattr(module, "REHEARSAL_DRAWS", 20)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def views_of(noise: float, seed: int = 0, val: int = 120, test: int = 200) -> dict[str, torch.Tensor]:
    """Features (n, 4, 8): a code an image, and noise a view."""
    g = torch.Generator().manual_seed(seed)
    sizes = {"train": 200, "val": val, "test": test}
    return {
        split: 3 + torch.randn(n, 1, 8, generator=g) + noise * torch.randn(n, 4, 8, generator=g)
        for split, n in sizes.items()
    }


def test_the_certificate_is_made_of_its_terms():
    result = certify(views_of(0.2), CertificateConfig(draws=400, delta=0.05), seed=0)
    m, c = result.metrics, result.constants
    assert (c["images"], c["m"], c["confirmed_on"]) == (120, 60, "test")
    assert c["delta_theorem"] + c["delta_monte_carlo"] == pytest.approx(0.05)
    assert c["complexity"] == pytest.approx(m["kl"] + math.log(2 * math.sqrt(60) / c["delta_theorem"]))
    assert m["empirical_risk_upper"] == kl_inverse(m["empirical_risk"], math.log(1 / c["delta_monte_carlo"]) / 400)
    assert m["bound"] == kl_inverse(m["empirical_risk_upper"], c["complexity"] / 60)
    assert m["bound"] == pytest.approx(catoni(m["empirical_risk_upper"], c["complexity"], 60, m["lambda"]))
    assert complexity(m["kl"], 60, c["delta_theorem"]) == c["complexity"]
    assert (c["prior_images"], c["rehearsal_images"]) == (134, 66)
    assert m["non_vacuous"] == 1
    assert m["bound"] < 0.3
    assert m["fixed_head_bound"] < 0.3
    assert str(result).startswith(
        f"certificate: at most {m['bound']:.1%} of new images are confused, with probability 95%"
    )
    json.dumps([m, c], allow_nan=False)


@pytest.mark.parametrize("negatives", [1, 3])
def test_the_bound_holds_on_images_without_end(negatives):
    """The other split is so large that its risk is the true one up to a percent."""
    for seed in range(3):
        views = views_of(1.0, seed, val=60, test=2000)
        result = certify(views, CertificateConfig(draws=100, negatives=negatives), seed)
        assert result.metrics["empirical_risk"] > 0.02
        assert result.metrics["bound"] >= result.metrics["confirmed_risk"] + 0.01
        assert result.metrics["chance"] == negatives / (negatives + 1)


def test_of_views_that_share_nothing_it_says_that_it_is_vacuous():
    g = torch.Generator().manual_seed(0)
    views = {split: torch.randn(90, 3, 8, generator=g) for split in ("train", "val", "test")}
    result = certify(views, CertificateConfig(draws=100), seed=0)
    assert result.metrics["non_vacuous"] == 0
    assert "vacuous: the bound is" in str(result)
    assert "guessing errs in 50.0%" in str(result)


def test_more_images_and_less_confidence_give_less():
    few, many = (certify(views_of(0.2, val=val), CertificateConfig(draws=300), 0) for val in (40, 300))
    assert many.metrics["bound"] < few.metrics["bound"]
    unsure = certify(views_of(0.2, val=40), CertificateConfig(draws=300, delta=0.4), 0)
    assert unsure.metrics["bound"] < few.metrics["bound"]


def test_it_is_a_function_of_the_seed():
    views, config = views_of(0.5), CertificateConfig(draws=50)
    assert certify(views, config, 1) == certify(views, config, 1)
    assert certify(views, config, 1).metrics != certify(views, config, 2).metrics


def test_prior_and_other_split_know_nothing_of_the_bounds_images():
    """What certifies are the images of one split: head, σ_P and λ are the same whatever these images are."""
    views, config = views_of(0.5), CertificateConfig(draws=20)
    other = {**views, "val": 5 * torch.randn(views["val"].shape, generator=torch.Generator().manual_seed(9))}
    one, two = certify(views, config, 0).constants, certify(other, config, 0).constants
    assert one["prior_std"] == two["prior_std"]
    assert one["objective_lambda"] == two["objective_lambda"]
    swapped = certify(views, CertificateConfig(split="test", draws=20), 0).constants
    assert (swapped["images"], swapped["confirmed_on"]) == (200, "val")


def test_a_feature_that_never_changes_is_no_trouble():
    views = {split: torch.cat([x, torch.ones(*x.shape[:2], 1)], 2) for split, x in views_of(0.2).items()}
    assert certify(views, CertificateConfig(draws=100), 0).metrics["non_vacuous"] == 1


def test_too_few_images_are_a_user_error():
    with pytest.raises(UserError, match="200 negatives need 201 images of val or more, there are 120"):
        certify({**views_of(0.2), "train": torch.zeros(700, 4, 8)}, CertificateConfig(negatives=200), 0)


def test_training_images_cannot_certify():
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), dtype=np.uint8)
    require_disjoint(images[20:], "val", [images[:10], images[10:20]])
    with pytest.raises(UserError, match="split 'val': 3 of its 10 pictures are training images too"):
        require_disjoint(images[20:], "val", [images[:10], images[18:23]])


def test_some_images_are_distinct_and_at_most_so_many(monkeypatch):
    images = np.arange(20).reshape(20, 1, 1, 1)
    assert some_images(images, 0) is images
    monkeypatch.setattr(module, "OTHER_IMAGES", 7)
    assert len(np.unique(some_images(images, 0))) == 7
    assert some_images(images, 0).tolist() != some_images(images, 1).tolist()


def test_views_that_are_not_augmented_have_the_features_of_embed(make_model, monkeypatch):
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 4)
    model = make_model(2, 4, 5)
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 1), dtype=np.uint8)
    views = view_features(model, images, 3, AugmentationConfig(unaltered_probability=1.0), CPU, seed=0)
    expected, _ = encode_images(model, images, CPU)
    assert views.shape == (10, 3, 16)
    for view in views.unbind(1):
        torch.testing.assert_close(view, expected, atol=1e-5, rtol=1e-5)
    moved = view_features(model, images, 3, AugmentationConfig(unaltered_probability=0.0, translate=0.3), CPU, seed=0)
    assert (moved[:, 0] - moved[:, 1]).abs().mean() > 0.01  # every view is drawn anew


def test_the_figure_is_drawn_with_and_without_a_best_lambda(tmp_path):
    result = certify(views_of(0.2), CertificateConfig(draws=50), 0)
    certificate_curves(result.metrics, result.constants, tmp_path / "one.png")
    without = {name: value for name, value in result.metrics.items() if name != "lambda"}
    certificate_curves(without, result.constants, tmp_path / "two.png")
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("one.png", "two.png"))


def test_impossible_settings_are_refused():
    for wrong in ({"negatives": 0}, {"draws": 0}, {"delta": 0.0}, {"delta": 1.0}, {"views": 1}):
        with pytest.raises(ValueError, match="must"):
            CertificateConfig(**wrong)
