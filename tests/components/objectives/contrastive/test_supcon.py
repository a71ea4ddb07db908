import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from components.data.config import AugmentationConfig, DataConfig, Source
from components.data.prepare import prepare
from components.data.prepared import Prepared
from components.errors import ConfigError
from components.objectives.base import Batch, TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.contrastive.nt_xent.term import nt_xent
from components.objectives.contrastive.supcon import SupConConfig
from components.objectives.contrastive.supcon.term import SupCon, supcon
from components.objectives.objective import build_objective
from components.training.config import TrainingConfig
from components.training.loop import pretrain
from components.training.validation import PretrainData

IMAGES = np.zeros((6, 2, 2, 1), np.uint8)


def naive(z: Tensor, classes: list[int], temperature: float) -> float:
    """Equation 2 of SupCon, one anchor and positive at a time."""
    views = len(z)
    z, y = z.flatten(0, 1), classes * views
    total = 0.0
    for i in range(len(z)):
        scores = [math.exp(float(z[i] @ a) / temperature) for a in z]
        positives = [p for p in range(len(z)) if p != i and y[p] == y[i]]
        shares = [scores[p] / (sum(scores) - scores[i]) for p in positives]
        total += -sum(math.log(share) for share in shares) / len(positives)
    return total / len(z)


@given(st.integers(2, 3), st.lists(st.integers(0, 2), min_size=2, max_size=6), st.floats(0.05, 2), st.integers(0, 999))
def test_it_equals_a_naive_loop(unit, views, classes, temperature, seed):
    z = unit(views, len(classes), seed=seed)
    found = supcon(z, torch.tensor(classes), temperature).item()
    assert found == pytest.approx(naive(z.double(), classes, temperature), rel=1e-3, abs=1e-4)


def test_loss_and_gradient_equal_the_public_librarys(agree, unit):
    from pytorch_metric_learning.losses import SupConLoss

    classes = torch.tensor([0, 1, 0, 2, 1])
    agree(
        lambda z: supcon(F.normalize(z, dim=-1), classes, 0.1),
        lambda z: SupConLoss(0.1)(z.flatten(0, 1), classes.repeat(3)),
        3 * unit(3, 5),
    )


def test_images_without_a_label_are_classes_of_their_own(make_model, unit):
    z = unit(2, 4)
    few = np.array([3, -1, -1, 3, -1, 0])
    term = SupCon(SupConConfig(temperature=0.2), make_model(), TrainingSet(IMAGES, few))
    found, _ = term(Batch(z, z, torch.tensor([0, 2, 3, 4]), torch.Generator()))
    torch.testing.assert_close(found, supcon(z, torch.tensor([7, 8, 7, 9]), 0.2))
    one = np.array([-1, -1, -1, -1, -1, 0])
    term = SupCon(SupConConfig(temperature=0.2), make_model(), TrainingSet(IMAGES, one))
    found, _ = term(Batch(z, z, torch.arange(4), torch.Generator()))
    torch.testing.assert_close(found, nt_xent(z.flatten(0, 1), 0.2))


@pytest.mark.parametrize("labels", [None, np.full(6, -1)])
def test_without_labels_it_is_refused(make_model, labels):
    variant = VariantConfig(0, 1, contrastive=SupConConfig())
    with pytest.raises(ConfigError, match=r"contrastive\.name: supcon learns from labels, but no image .* nt_xent"):
        build_objective(variant, make_model(w_gen=0), TrainingSet(IMAGES, labels), 0)


def test_a_step_learns_from_the_labels_of_a_set_of_its_own_to_pretrain_on(make_model, tmp_path):
    """Some of the digits are labelled; more are pretrained on, of which those of the class 9 are none of these."""
    labelled, pretrained_on = Source(builtin="digits", limit=200, exclude_classes=("9",)), Source(builtin="digits")
    prepare(DataConfig(8, 1, labelled, pretrained_on), 0, tmp_path / "prepared", 64)
    prepared = Prepared.open(tmp_path / "prepared")
    images, labels = prepared.images("pretrain"), prepared.labels("pretrain")
    assert set(labels) == {-1, *range(9)}
    val = prepared.images("val"), prepared.labels("val")
    variant = VariantConfig(0, 1, contrastive=SupConConfig())
    config = TrainingConfig(steps=1, batch_size=64, learning_rate=0.01, warmup_steps=0, device="cpu")
    losses = []
    for name, known in (("as prepared", labels), ("none but one", np.where(np.arange(len(labels)), -1, 0))):
        data, model = PretrainData(images, val, val, known), make_model(2, 8, w_gen=0, fresh=True)
        place = tmp_path / name / "resume.pt"
        trained = pretrain(model, data, variant, config, AugmentationConfig(), 0, place, "key", lambda *_: None)
        losses.append(trained.metrics["contrastive_loss"])
    assert losses[0] > losses[1] + 0.5, "images of a class are not nearer than a view's own image, at first"


def test_the_labels_are_no_state(make_model):
    assert not SupCon(SupConConfig(), make_model(), TrainingSet(IMAGES, np.arange(6))).state_dict()
