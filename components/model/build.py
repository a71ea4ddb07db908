"""Build a model for a data set and variant; save and load its weights."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from components.data.augment import condition_size
from components.errors import ConfigError, UserError
from components.files import atomic_file
from components.model.config import ModelConfig
from components.model.gcrl import GCRL
from components.model.pretrained import PretrainedEncoder
from components.model.tokens import LEVELS
from components.objectives.config import VariantConfig
from components.objectives.settings import ExactSettings


@dataclass(frozen=True)
class Architecture:
    """All that the weights' names and shapes depend on; stored beside them."""

    model: ModelConfig
    image_size: int
    channels: int
    colours: int
    generative: bool
    contrastive: bool
    condition_on_augmentation: bool
    bidirectional: bool
    orders: int
    filters: int = 0  # of PixelCNN++'s convolutions; 0: a transformer
    scored_size: int = 0  # of the reduced image that the likelihood is of, and its patches' side; 0: the image itself
    scored_patch: int = 0
    encoder: str | None = None  # the timm model whose features are taken, and the size that it sees
    encoder_size: int = 0

    @classmethod
    def of(cls, model: ModelConfig, variant: VariantConfig, image_size: int, palette: np.ndarray) -> "Architecture":
        """The architecture of a variant on images of a size, in a palette (K, C)."""
        if image_size % model.patch_size:
            raise ConfigError(
                f"model.patch_size: {model.patch_size} does not divide data.image_size ({image_size}). "
                "Choose a patch size that does."
            )
        colours, channels = palette.shape
        if model.likelihood != "palette":
            colours = LEVELS  # of a sub-pixel
        conditioned, orders, filters, scored_size, scored_patch = False, 0, 0, 0, 0
        if variant.likelihood:
            term = variant.generative
            assert isinstance(term, ExactSettings)
            conditioned, orders = term.condition_on_augmentation, term.orders
            filters = term.filters_beside(model.width)
            if term.image_size is not None:
                scored_size, scored_patch = term.image_size, term.patch_size
        bidirectional = variant.w_gen > 0 and variant.generative.bidirectional
        parts = variant.likelihood, variant.projects, conditioned, bidirectional, orders, filters
        architecture = cls(model, image_size, channels, colours, *parts, scored_size, scored_patch)
        if variant.encoder is None:
            return architecture
        size = variant.encoder.image_size or image_size
        return replace(architecture, encoder=variant.encoder.timm, encoder_size=size)

    @classmethod
    def of_encoder(cls, model: ModelConfig, image_size: int, palette: np.ndarray) -> "Architecture":
        """The architecture of an encoder with neither projection head nor decoder, as a student has it."""
        return replace(cls.of(model, VariantConfig(w_gen=0, w_con=1), image_size, palette), contrastive=False)


def build(
    architecture: Architecture, palette: np.ndarray, seed: int, pretrained: PretrainedEncoder | None = None
) -> GCRL:
    """A freshly initialised model; the same seed gives the same weights, whatever else the process has drawn. A
    pretrained encoder has no weights yet unless it is given."""
    if architecture.encoder is not None and pretrained is None:
        pretrained = PretrainedEncoder(architecture.encoder, architecture.encoder_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GCRL(
            architecture.model,
            architecture.image_size,
            torch.from_numpy(np.ascontiguousarray(palette)),
            generative=architecture.generative,
            contrastive=architecture.contrastive,
            condition_size=condition_size(architecture.channels) if architecture.condition_on_augmentation else 0,
            bidirectional=architecture.bidirectional,
            orders=architecture.orders,
            filters=architecture.filters,
            scored_size=architecture.scored_size,
            scored_patch=architecture.scored_patch,
            pretrained=pretrained,
        )


def save_weights(path: Path, model: GCRL, architecture: Architecture) -> None:
    """Write the model's weights and architecture as safetensors."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    content = save(weights, metadata={"architecture": json.dumps(asdict(architecture))})
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)  # save_file would hide a full disk's error


def load_weights(path: Path, expected: Architecture | None = None) -> tuple[GCRL, Architecture]:
    """Read a model in evaluation mode; refuse another architecture than `expected` and weights that are not finite."""
    retrain = "Delete the file and run `dvc repro` to train again."
    if not path.exists():
        raise UserError(f"{path}: no model weights here. Run `dvc repro` first.")
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        found = json.loads(metadata["architecture"])
        architecture = Architecture(**{**found, "model": ModelConfig(**found["model"])})
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a weights file of this project ({error}). {retrain}") from error
    if expected is not None and architecture != expected:
        different = "; ".join(differences(expected, architecture).values())
        raise UserError(f"{path}: weights of another architecture: {different}. {retrain}")
    broken = [name for name, value in weights.items() if not value.isfinite().all()]
    if broken:
        raise UserError(f"{path}: weights that are not finite numbers in {', '.join(broken[:3])}. {retrain}")
    palette = np.zeros((architecture.colours, architecture.channels), np.uint8)  # the real one is among the weights
    model = build(architecture, palette, seed=0)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path}: weights do not fit their own description ({error}). {retrain}") from error
    return model.eval(), architecture


def differences(expected: Architecture, found: Architecture) -> dict[str, str]:
    """How one differs from the other, by setting."""
    ours, theirs = _flat(expected), _flat(found)
    return {k: f"{k} is {theirs[k]}, expected {ours[k]}" for k in ours if ours[k] != theirs[k]}


def _flat(architecture: Architecture) -> dict[str, Any]:
    values = asdict(architecture)
    return {**{f"model.{k}": v for k, v in values.pop("model").items()}, **values}
