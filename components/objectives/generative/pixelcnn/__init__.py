"""PixelCNN++, declared; the code is that of `autoregressive`, because the model differs and not the loss."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.generative.autoregressive import RasterSettings
from components.objectives.settings import Words, positive


@dataclass(frozen=True)
class PixelCNNConfig(RasterSettings):
    """The likelihood of PixelCNN++'s convolutions in the place of the transformer's blocks, one for one."""

    words = Words(
        label="PixelCNN++",
        learns="predicting images piece by piece, by convolutions",
        what="the exact likelihood in raster order, from two streams of gated convolutions on the grid of patches, one "
        "of the rows above, one of the row so far, which take the place of the transformer's blocks, one for one. With "
        "`patch_size: 1` and `likelihood: logistic_mixture` the paper's model, but for its down- and upsampling",
        when="the convolutional baseline for the likelihood. An encoder of L blocks sees 2L rows and columns far: "
        "larger grids want larger patches",
        cost="1.4 times with `filters` (channels of a stream) at half of `model.width`, the default; samples pass the "
        "whole image anew for each patch",
        papers={"Salimans et al. 2017": "https://arxiv.org/abs/1701.05517"},
    )

    name: Literal["pixelcnn"] = "pixelcnn"
    filters: int | None = None  # of each stream; null: half of model.width, which costs about what its blocks cost

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.filters is not None:
            positive(self, "filters")

    def filters_beside(self, width: int) -> int:
        """The filters of a model of this width."""
        return self.filters or (width + 1) // 2

    @staticmethod
    def term() -> type:
        from components.objectives.generative.autoregressive.term import Autoregressive

        return Autoregressive
