from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.model.gcrl import GCRL
from components.objectives.config import VariantConfig
from components.training.checkpoint import History
from components.training.loop import pretrain
from components.training.validation import PretrainData
from tests.components.training.small_runs import AUGMENTATION, CONFIG, HYBRID, data_of


@pytest.fixture
def data(stripes) -> PretrainData:
    return data_of(*stripes)


@pytest.fixture
def train(data, coloured_stripes, tmp_path) -> Callable[..., History]:
    """Train a model in place, by default for twelve steps without being interrupted; returns the history."""

    def run(
        model: GCRL,
        variant: VariantConfig = HYBRID,
        resume: Path | None = None,
        on_metrics: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
        **changes: Any,
    ) -> History:
        place, config = resume or tmp_path / "whole" / "resume.pt", replace(CONFIG, **changes)
        seen = data_of(*coloured_stripes) if model.channels == 3 else data
        return pretrain(model, seen, variant, config, AUGMENTATION, 0, place, "key", on_metrics).history

    return run


@pytest.fixture
def fresh(make_model) -> Callable[..., GCRL]:
    def make(variant: VariantConfig = HYBRID, seed: int = 0) -> GCRL:
        channels = 3 if variant.contrastive.name == "cmc" else 1
        layers = 3 if variant.contrastive.name == "loco" else 1  # for two units
        sizes = {"patch_size": 2, "image_size": 8, "colours": 8, "encoder_layers": layers, "decoder_layers": 1}
        terms = {"w_gen": variant.w_gen, "w_con": variant.w_con, "generative": variant.generative}
        return make_model(**sizes, **terms, channels=channels, seed=seed, fresh=True)

    return make
