from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from components.distillation.objective import Probe
from components.model.build import Architecture, build
from components.model.config import ModelConfig
from components.model.gcrl import GCRL
from components.training.validation import PretrainData

COLOURS, CLASSES, TEACHER_WIDTH = 8, 4, 16


@pytest.fixture
def data(stripes) -> PretrainData:
    images, labels = stripes
    return PretrainData(images, (images, labels), (images[:40], labels[:40]))


@pytest.fixture
def teacher(make_model) -> GCRL:
    return make_model(2, 8, COLOURS, encoder_layers=1, decoder_layers=1)


@pytest.fixture
def probe() -> Probe:
    rng = np.random.default_rng(0)
    return Probe(rng.normal(size=(CLASSES, TEACHER_WIDTH)), rng.normal(size=CLASSES))


@pytest.fixture
def student(make_palette) -> Callable[..., GCRL]:
    """Half as wide as the teacher, as initialised."""

    def make(seed: int = 0, **shape: Any) -> GCRL:
        small = {"patch_size": 2, "width": 8, "heads": 2, "encoder_layers": 1, "local_width": 4}
        palette = make_palette(COLOURS, 1)
        return build(Architecture.of_encoder(ModelConfig(**{**small, **shape}), 8, palette), palette, seed)

    return make
