"""Encoders that others have pretrained: timm's models by name, frozen.

timm (Wightman 2019) knows each model's mean, standard deviation and licence, fetches its weights from the Hugging Face
hub or reads them from a file, and fits a vision transformer's positions to another picture size.
"""

import hashlib
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from components.errors import ConfigError, UserError, nearest
from components.model.config import PretrainedConfig

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# no network, nothing on the hub, no file; damaged files of either form; tensors that do not fit the model
UNREADABLE = (OSError, SafetensorError, UnpicklingError, EOFError, KeyError, ValueError, RuntimeError)


class PretrainedEncoder(nn.Module):
    """Features (n, D) of pictures; its weights take no gradient, and its batch statistics stay as they are.

    Args:
        name: of a timm model; `architecture_of` has checked it.
        size: side in pixels to which pictures are enlarged first, or that they have.
        weights: None for weights that are read later, from this project's own file; otherwise where timm finds them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, size: int, weights: PretrainedConfig | None = None) -> None:
        super().__init__()
        import timm
        from timm.data import resolve_model_data_config

        self.size = size
        options: dict[str, Any] = {"num_classes": 0}
        if timm.get_pretrained_cfg_value(name, "fixed_input_size"):
            options["img_size"] = size
        if weights is not None:
            options["pretrained"] = True
            if weights.weights is not None:
                options["pretrained_cfg_overlay"] = {"file": weights.weights}
        model: Any = timm.create_model(name, **options)
        self.model: nn.Module = model
        self.published: dict[str, Any] = model.pretrained_cfg  # what timm says of the weights
        self.feature_size = int(model.num_features)
        data = resolve_model_data_config(model)
        for statistic in ("mean", "std"):
            self.register_buffer(statistic, torch.tensor(data[statistic])[:, None, None], persistent=False)  # (3, 1, 1)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "PretrainedEncoder":
        """Stays in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features float32 (n, D) of images (n, C, H, W) in [0, 1]; grey ones are taken as three equal channels."""
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        if images.shape[2] != self.size:
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False)
        return self.model((images - self.mean) / self.std).float()


def pretrained_encoder(config: PretrainedConfig, image_size: int) -> tuple[PretrainedEncoder, dict[str, str]]:
    """The encoder with its weights, and where they come from, for the run's record.

    Raises:
        ConfigError: no such model, or one that cannot take pictures of this size.
        UserError: the weights cannot be had, or are another model's.
    """
    check_name(config)
    size = config.image_size or image_size
    where = f"the file {config.weights}" if config.weights else "the Hugging Face hub"
    if config.weights is not None and not Path(config.weights).is_file():
        raise UserError(f"encoder.weights: there is no file {config.weights}.")
    try:
        with torch.no_grad():  # apart from its weights
            PretrainedEncoder(config.timm, size)(torch.zeros(1, 3, image_size, image_size))
    except (AssertionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"encoder.timm: {config.timm} cannot take pictures of {size}×{size} pixels ({_line(error)}). Set "
            "encoder.image_size to a size that it takes, at least data.image_size."
        ) from error
    try:
        encoder = PretrainedEncoder(config.timm, size, config)
    except UNREADABLE as error:
        advice = (
            "Give the weights of this architecture, as timm or safetensors write them."
            if config.weights
            else "Connect this machine to the network once, or fetch the file elsewhere and name it in encoder.weights."
        )
        raise UserError(f"encoder.timm: {config.timm}: no weights from {where} ({_line(error)}). {advice}") from error
    found = encoder.published
    facts = {
        "encoder": config.timm,
        "encoder_weights": config.weights or str(found.get("hf_hub_id") or found.get("url")),
        "encoder_sha256": _digest(encoder.model),
        "encoder_license": str((not config.weights and found.get("license")) or "not stated"),
    }
    return encoder, facts


def check_name(config: PretrainedConfig) -> None:
    """Raises ConfigError where timm has no such model."""
    try:
        import timm
    except ImportError as error:
        raise ConfigError("encoder.timm: the package timm is not installed. Run `pip install timm`.") from error
    if not timm.is_model(config.timm):
        known = timm.list_models()
        raise ConfigError(
            f"encoder.timm: timm {timm.__version__} has no model {config.timm!r}{nearest(config.timm, known)}. "
            "`timm.list_models()` has all names."
        )


def _digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
