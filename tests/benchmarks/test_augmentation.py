import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.augmentation import contenders, ours, theirs
from components.data.augment import apply, draw
from components.model.tokens import to_unit


@pytest.mark.parametrize("blur", [False, True])
def test_both_pipelines_make_the_same_kind_of_view(blur):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    generator = torch.Generator().manual_seed(0)
    our_view = apply(to_unit(torch.from_numpy(image)[None]), draw(ours(blur), 1, 3, generator), "reflection")[0]
    their_view = theirs(8, blur)(Image.fromarray(image))
    assert our_view.shape == their_view.shape == (3, 8, 8)
    assert our_view.dtype == their_view.dtype == torch.float32
    assert all(view.min() >= 0 and view.max() <= 1 for view in (our_view, their_view))
    assert (draw(ours(blur), 1, 3, generator).blur is not None) == blur


def test_every_contender_has_a_rate():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    rates = contenders(pixels, np.zeros((1, 3), np.uint8), False, 0.01)
    assert len(rates) == 5
    # not those whose workers are forks of this process, with all the threads that other tests have left in it
    assert all(rate() > 0 for name, rate in rates.items() if "workers" not in name)
