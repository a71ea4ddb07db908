"""Where does one tile of an image lie, seen from another? (Doersch, Gupta and Efros 2015, arXiv 1505.05192, section 3).

An image is cut into nine cells; of the middle one and one of the eight around it a tile is shown, each somewhere in
its cell, so that no edge goes on from one to the other. A classifier on the features of both tells which of the eight.

What we changed: a tile is brought to the image's size, so that the encoder is the one that reads whole images later.
Directions go round in a batch instead of being drawn: the i-th image's is i modulo 8. A batch is a random choice of
images in the training set's order, so that an image's place in it, and its direction, change from batch to batch (but
little for the set's first and last few). Nothing is done against chromatic aberration, by which an encoder can tell
where in a colour photograph a tile lay; the paper shifts green and magenta towards grey or drops two of the three
channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.model.gcrl import GCRL
from components.objectives.base import Batch, ContrastiveTerm, Loss, TrainingSet, feature_size
from components.objectives.parts.cropping import crop
from components.objectives.predictive.relative_position import RelativePositionConfig

AROUND = ((-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1))  # x and y, in cells from the middle
TILE = 1 / 4  # of the image's side; a cell is a third


class RelativePosition(ContrastiveTerm[RelativePositionConfig]):
    """View 0 is a tile of the middle, view 1 one beside it, both of one augmented view. Owns the classifier."""

    def __init__(self, config: RelativePositionConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        size = feature_size(model)
        self.classifier = nn.Sequential(nn.Linear(2 * size, size), nn.GELU(), nn.Linear(size, len(AROUND)))

    def draw(self, images: int, generator: torch.Generator) -> Tensor:
        """The second tile's cell, and where in its cell each tile lies: (images, 3, 2), x and y; cells in −1 … 1,
        places between −1 and 1."""
        cells = torch.tensor(AROUND, device=generator.device)[directions(images, generator.device)]
        places = 2 * torch.rand(images, 2, 2, generator=generator, device=generator.device) - 1
        return torch.cat([cells[:, None], places], 1)

    def alter(self, views: Tensor, drawn: Tensor | None) -> Tensor:
        assert drawn is not None
        cell, first, second = drawn.unbind(1)
        return torch.stack([tile(views[0], torch.zeros_like(cell), first), tile(views[0], cell, second)])

    def forward(self, batch: Batch) -> Loss:
        logits = self.classifier(torch.cat([*batch.features], 1).float())  # (B, 8)
        targets = directions(len(logits), logits.device)
        return F.cross_entropy(logits, targets), {"position_accuracy": (logits.argmax(1) == targets).float().mean()}


def directions(images: int, device: torch.device) -> Tensor:
    """Which of the eight cells each image's second tile is in (images,)."""
    return torch.arange(images, device=device) % len(AROUND)


def tile(images: Tensor, cell: Tensor, place: Tensor) -> Tensor:
    """A tile (b, C, H, W), brought to the image's size, of images (b, C, H, W): in a cell (b, 2), −1 to 1 from the
    middle one, at a place in it (b, 2) between −1 and 1, the edges that it touches."""
    centre = 2 * cell / 3 + place * (1 / 3 - TILE)  # an image reaches from −1 to 1
    return crop(images, (centre / (1 - TILE) + 1) / 2, TILE)
