import numpy as np
import torch

from components.training import quick_look
from components.training.quick_look import PretrainData, evaluate

CPU = torch.device("cpu")


def test_the_quick_look_sees_every_class(make_model, monkeypatch):
    """Splits may be sorted by class: the first images alone would be of one class."""
    monkeypatch.setattr(quick_look, "QUICK_LOOK", 50)
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
