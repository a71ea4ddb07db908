"""The shape of the model. No tensor library is imported here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    """A causal transformer stack: `encoder_layers` below, `decoder_layers` above, on patches of patch_size² tokens.

    patch_size 1 is the palette-pixel form of iGPT and of the GCRL paper: one token a pixel.
    """

    patch_size: int
    width: int = 128
    heads: int = 4
    encoder_layers: int = 4
    decoder_layers: int = 2
    local_width: int = 32  # a token's share of the hidden layer in the patch's local head
    projection_width: int = 256
    projection_size: int = 64

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
