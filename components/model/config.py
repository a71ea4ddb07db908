"""The shape of the model. No tensor library is imported here."""

from dataclasses import dataclass, fields
from typing import Any, Literal

# The field's vision transformers (Touvron et al. 2021, DeiT): width, heads and depth. Depth is shared out between
# encoder and decoder. Without a size: what suits a CPU.
SIZES: dict[str | None, dict[str, int]] = {
    None: {
        "width": 128,
        "heads": 4,
        "encoder_layers": 4,
        "decoder_layers": 2,
        "local_width": 32,
        "projection_width": 256,
        "projection_size": 64,
    },
    "tiny": {
        "width": 192,
        "heads": 3,
        "encoder_layers": 10,
        "decoder_layers": 2,
        "local_width": 32,
        "projection_width": 1024,
        "projection_size": 128,
    },
    "small": {
        "width": 384,
        "heads": 6,
        "encoder_layers": 10,
        "decoder_layers": 2,
        "local_width": 64,
        "projection_width": 2048,
        "projection_size": 128,
    },
    "base": {
        "width": 768,
        "heads": 12,
        "encoder_layers": 10,
        "decoder_layers": 2,
        "local_width": 64,
        "projection_width": 2048,
        "projection_size": 128,
    },
}
LARGEST_BLOCK = 4  # side in pixels of what is predicted pixel by pixel without being divided
OF_SIZE: Any = None  # a key that is not given takes the value of `size`


@dataclass(frozen=True)
class ModelConfig:
    """A causal transformer stack: `encoder_layers` below, `decoder_layers` above, on patches of patch_size² pixels.

    patch_size 1 with the palette likelihood is the form of iGPT and of the GCRL paper: one token a pixel.
    """

    patch_size: int
    width: int = OF_SIZE
    heads: int = OF_SIZE
    encoder_layers: int = OF_SIZE
    decoder_layers: int = OF_SIZE
    # a token's share of the hidden layer in the patch's local head; half of the size's where a patch is taken in blocks
    local_width: int = OF_SIZE
    projection_width: int = OF_SIZE
    projection_size: int = OF_SIZE
    size: Literal["tiny", "small", "base"] | None = None  # what the keys above are where they are not given
    # what a token is: an index into the palette, or an 8-bit sub-pixel, whose likelihood is a mixture or a softmax
    likelihood: Literal["palette", "logistic_mixture", "categorical"] = "palette"
    mixture_components: int = 10  # logistic_mixture: of a pixel's mixture

    def __post_init__(self) -> None:
        for name, value in SIZES[self.size].items():
            if getattr(self, name) is None:
                halved = name == "local_width" and self.patch_size > LARGEST_BLOCK
                object.__setattr__(self, name, value // 2 if halved else value)
        for field in fields(self):
            if field.type is int and getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} must be at least 1")
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")


@dataclass(frozen=True)
class PretrainedConfig:
    """An encoder that others have trained, taken as it is."""

    timm: str  # name of a timm model, with the tag of its weights: resnet18.a1_in1k
    weights: str | None = None  # a file in place of the Hugging Face hub: safetensors, or a checkpoint of timm
    image_size: int | None = None  # to which pictures are enlarged inside the model; null: data.image_size

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise ValueError("image_size must be at least 1")
