import numpy as np
import pytest
import torch

from components.model.encode import encode_features, encode_images
from components.objectives.generative.permuted import PermutedConfig

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (11, 4, 4, 1), dtype=np.uint8)


@pytest.mark.parametrize("parts", [{}, {"w_gen": 0}, {"generative": PermutedConfig(orders=3)}])
def test_features_alone_are_those_that_come_with_the_likelihood(make_model, parts):
    model = make_model(2, 4, **parts)
    expected, _ = encode_images(model, IMAGES, CPU, batch_size=4)
    assert torch.equal(encode_features(model, IMAGES, CPU, batch_size=4), expected)


def test_features_alone_need_neither_decoder_nor_head(make_model):
    model = make_model(2, 4)
    expected = encode_features(model, IMAGES, CPU)
    model.decoder = model.head = model.projection = None
    assert torch.equal(encode_features(model, IMAGES, CPU), expected)
    assert (expected.shape, expected.dtype, expected.requires_grad) == ((11, 16), torch.float32, False)
