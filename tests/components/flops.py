"""What a view costs, worked out by hand: floating-point operations of matrix products (two for a multiplication and
addition). What is counted in a real pass is compared with it."""

import itertools
from dataclasses import dataclass

from components.data.augment import condition_size
from components.model.build import Architecture
from components.model.local_head import PARTS
from components.model.tokens import LEVELS, nested_sides


@dataclass(frozen=True)
class Flops:
    """Of one view: `encoder` with the projection head, `decoder` with the local head. `encoder_data` and `decoder_data`
    are the shares of products whose input is data, which needs no gradient."""

    encoder: int
    decoder: int
    encoder_data: int
    decoder_data: int

    @property
    def training(self) -> tuple[int, int]:
        """Forward and backward pass of encoder and decoder: two more products for each, one where its input is data."""
        return 3 * self.encoder - self.encoder_data, 3 * self.decoder - self.decoder_data


def flops_per_view(architecture: Architecture, scored: int | None = None) -> Flops:
    """A forward pass in which the local head scores so many patches (default: all)."""
    model, C = architecture.model, architecture.channels
    D, S = model.width, model.patch_size**2
    T = (architecture.image_size // model.patch_size) ** 2
    palette = model.likelihood == "palette"
    patch = 2 * T * S * (model.local_width if palette else C) * D
    encoder = patch + _stack(architecture, model.encoder_layers, T + 1)
    encoder_data = 0 if palette else patch
    if architecture.contrastive:
        encoder += 2 * model.projection_width * (D + model.projection_size)
    if not architecture.generative:
        return Flops(encoder, 0, encoder_data, 0)
    conditioned = 2 * D * condition_size(C) if architecture.condition_on_augmentation else 0
    head, head_data = _local_head(architecture)
    scored = T if scored is None else scored
    decoder = conditioned + _stack(architecture, model.decoder_layers, T) + scored * head
    return Flops(encoder, decoder, encoder_data, conditioned + scored * head_data)


def _stack(architecture: Architecture, layers: int, positions: int) -> int:
    """A transformer's blocks: projections and MLP (12 width² a position); scores and their products with the values.
    PixelCNN++'s: kernels of 6 and of 4 cells, each from 2 to 1 and from 2 to 2 times the filters, on whole rows of
    cells; a product from stream to stream; those into the streams and out of them."""
    D, filters = architecture.model.width, architecture.filters
    if not filters:
        return layers * (2 * positions * 12 * D**2 + 2 * 2 * positions**2 * D)
    side = architecture.image_size // architecture.model.patch_size
    cells = -(-positions // side) * side
    block = (6 + 4) * (2 + 4) + 2
    return 2 * layers * cells * block * filters**2 + 2 * positions * 3 * D * filters


def _local_head(architecture: Architecture) -> tuple[int, int]:
    """The local head on one patch, and the part of it that multiplies pixel values as they are."""
    model, C = architecture.model, architecture.channels
    sides, width = nested_sides(model.patch_size), 2 * model.local_width
    reads = {"palette": model.local_width, "categorical": C * model.local_width, "logistic_mixture": C}[
        model.likelihood
    ]
    context, whole, data = model.width, 0, 0
    for outer, inner in itertools.pairwise(sides):
        parents, children = (sides[0] // outer) ** 2, (outer // inner) ** 2
        from_pixels = 2 * parents * outer**2 * reads * children * width
        whole += from_pixels + 2 * parents * children * width * context
        whole += 2 * parents * _among(children, width)
        data += from_pixels if model.likelihood == "logistic_mixture" else 0
        context = width
    blocks = (sides[0] // sides[-1]) ** 2
    if blocks > 1:
        context += (2 * sides[-1] + 1) * reads
    pixels, pixel_data = _pixel_head(architecture, context, sides[-1] ** 2)
    return whole + blocks * pixels, data + blocks * pixel_data


def _pixel_head(architecture: Architecture, context: int, S: int) -> tuple[int, int]:
    model, C = architecture.model, architecture.channels
    if model.likelihood == "logistic_mixture":
        row = (
            C * model.mixture_components
        )  # a number for each channel and component; slopes in all channels but the last
        elements, inputs, outputs = S, C, model.mixture_components + (C + 1) * row
    else:
        palette = model.likelihood == "palette"
        elements, outputs = (S, architecture.colours) if palette else (S * C, LEVELS)
        inputs = model.local_width
    hidden = elements * model.local_width
    first = 2 * elements * inputs * hidden
    rest = 2 * hidden * (context + outputs) + 2 * _among(elements, model.local_width)
    if model.likelihood != "logistic_mixture":
        return first + rest, 0
    shifts = first + 2 * (S * C) ** 2
    values = 2 * S * row * (2 * C - 1)  # repeated for each component: no gradient at all
    repeated = 2 * S * C * row  # the shifts, by a matrix that needs none
    return shifts + rest + values + repeated, shifts + 2 * values + repeated


def _among(elements: int, width: int) -> int:
    """Multiplications among the units of a masked network's elements, many of which are taken in parts."""
    size = -(-elements // PARTS) if elements > PARTS else elements
    stops = [min(first + size, elements) for first in range(0, elements, size)]
    return sum((stop - start) * stop for start, stop in zip([0, *stops], stops, strict=False)) * width**2
