"""The public libraries that we measure ourselves against, each used as its documentation says, from PyPI.

All train a vision transformer of the same width, depth, heads and patch size as our encoder on the same images, in the
same precision, with their own data pipeline (transforms a sample, in PyTorch's DataLoader with a worker a core). We
call their modules from a plain loop, which is the leanest way to run them.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from components.model.config import ModelConfig
from components.training.config import TrainingConfig
from components.training.device import choose_device, choose_dtype
from components.training.optimizer import schedule, set_learning_rate

os.environ |= {"WANDB_MODE": "disabled", "LOGURU_LEVEL": "ERROR"}  # nothing phones home; no chatter among the tables

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what the libraries' own transforms normalise with
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.05  # AdamW, the usual recipe for small vision transformers


@dataclass(frozen=True)
class Setting:
    """What is the same for everybody. Of the training config: steps and warm-up, batch, device and precision."""

    images: np.ndarray  # uint8 (N, H, W, 3)
    model: ModelConfig
    training: TrainingConfig
    temperature: float
    seed: int = 0


class Peer:
    """A library's method in training: `train(steps)` goes on where it stopped, `features` is what a probe reads."""

    def __init__(self, name: str, setting: Setting) -> None:
        torch.manual_seed(setting.seed)
        self.setting, self.device = setting, choose_device(setting.training)
        transform, self.loss, self.encode, module = METHODS[name](setting)
        self.module = module.to(self.device)
        self.dataset = _Views(setting.images, transform)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        self.done = 0
        self.batches: Iterator[tuple[Tensor, Tensor]] | None = None

    def train(self, steps: int) -> None:
        """Take so many optimizer steps; returns when the device has done them."""
        device, config = self.device, self.setting.training
        dtype = choose_dtype(config, device)
        self.module.train()
        for _ in range(steps):
            set_learning_rate([self.optimizer], LEARNING_RATE * schedule(config, self.done))
            first, second = (view.to(device, non_blocking=True) for view in self._next())
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss = self.loss(first, second)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.done += 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def pause(self) -> None:
        """Stop the workers, so that they take no time from others."""
        self.batches = None

    @torch.no_grad()
    def features(self, images: np.ndarray) -> np.ndarray:
        """Features float32 (N, D) of uint8 images (N, H, W, 3)."""
        self.module.eval()
        mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
        parts = []
        for start in range(0, len(images), 256):
            pixels = torch.from_numpy(np.array(images[start : start + 256])).permute(0, 3, 1, 2).float() / 255
            parts.append(self.encode(((pixels - mean) / std).to(self.device)).float().cpu().numpy())
        return np.concatenate(parts)

    def _next(self) -> tuple[Tensor, Tensor]:
        if self.batches is None:
            loader = DataLoader(
                self.dataset,
                self.setting.training.batch_size,
                shuffle=True,
                drop_last=True,
                num_workers=os.cpu_count() or 1,
                pin_memory=self.device.type == "cuda",
                persistent_workers=True,  # to their advantage: starting them anew costs every epoch of a small set
                generator=torch.Generator().manual_seed(self.setting.seed + self.done),
            )
            self.batches = chain.from_iterable(repeat(loader))
        return next(self.batches)


class _Views(Dataset[tuple[Tensor, Tensor]]):
    """Images as the libraries want them, PIL, through their two-view transform."""

    def __init__(self, images: np.ndarray, transform: Callable[[Image.Image], tuple[Tensor, Tensor]]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(Image.fromarray(self.images[index]))


def _vit(setting: Setting, any_size: bool = False) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    model = setting.model
    return VisionTransformer(
        img_size=setting.images.shape[1],
        patch_size=model.patch_size,
        embed_dim=model.width,
        depth=model.encoder_layers,
        num_heads=model.heads,
        num_classes=0,
        global_pool="avg",
        dynamic_img_size=any_size,
    )


def _lightly(setting: Setting) -> tuple[Any, Any, Any, nn.Module]:
    """lightly's SimCLR, as in its examples for CIFAR-10: jitter at half strength, no blur."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform

    model, backbone = setting.model, _vit(setting)
    head = SimCLRProjectionHead(model.width, model.projection_width, model.projection_size)
    criterion = NTXentLoss(setting.temperature)
    transform = SimCLRTransform(input_size=setting.images.shape[1], cj_strength=0.5, gaussian_blur=0.0)

    def loss(first: Tensor, second: Tensor) -> Tensor:
        return criterion(head(backbone(first)), head(backbone(second)))

    return transform, loss, backbone, nn.ModuleList([backbone, head])


def _stable_pretraining(method: str) -> Callable[[Setting], tuple[Any, Any, Any, nn.Module]]:
    def make(setting: Setting) -> tuple[Any, Any, Any, nn.Module]:
        from stable_pretraining.methods import cmae, simclr

        # a library that it imports dislikes fork, which DataLoader uses; none of its objects are in our workers
        warnings.filterwarnings("ignore", "lance is not fork-safe")
        if method == "SimCLR":
            dims = (setting.model.projection_width, setting.model.projection_size)
            backbone = _vit(setting, any_size=True)  # it tries its backbone on an image of 224×224
            module: Any = simclr.SimCLR(backbone, projector_dims=dims, temperature=setting.temperature)
        else:
            module = cmae.CMAE(_vit(setting), patch_size=setting.model.patch_size, image_size=setting.images.shape[1])

        def loss(first: Tensor, second: Tensor) -> Tensor:
            loss = module(first, second).loss
            if method == "CMAE":
                module.backbone.update_teacher()
                module.projector.update_teacher()
            return loss

        return _StableViews(setting.images.shape[1]), loss, lambda images: module(images).embedding, module

    return make


class _StableViews:
    """stable-pretraining's own transforms, on its samples (dictionaries), at the strength of its CIFAR-10 examples."""

    def __init__(self, image_size: int) -> None:
        from stable_pretraining.data import transforms

        self.view = transforms.Compose(
            transforms.RGB(),
            transforms.RandomResizedCrop((image_size, image_size), scale=(0.2, 1.0)),
            transforms.RandomHorizontalFlip(p=0.5),
            transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.ToImage(mean=MEAN, std=STD),
        )

    def __call__(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        first, second = (self.view({"image": image})["image"] for _ in range(2))
        return first, second


METHODS: dict[str, Callable[[Setting], tuple[Any, Any, Any, nn.Module]]] = {
    "lightly SimCLR": _lightly,
    "stable-pretraining SimCLR": _stable_pretraining("SimCLR"),
    "stable-pretraining CMAE": _stable_pretraining("CMAE"),
}
