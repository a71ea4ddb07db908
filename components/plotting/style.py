"""One look for all figures. Matplotlib is imported on use, and pyplot (slow, global state) never."""

import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's colour-blind-safe palette (https://jfly.uni-koeln.de/color/)
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#8C8C8C"
NAMED = {
    **{"black": BLACK, "orange": ORANGE, "sky": SKY, "green": GREEN, "yellow": YELLOW, "blue": BLUE},
    **{"vermilion": VERMILION, "purple": PURPLE, "grey": GREY},
}  # what a declaration names
VARIANTS = {"hybrid": BLUE, "generative": ORANGE, "contrastive": GREEN}
OTHERS = (PURPLE, SKY, VERMILION, BLACK, YELLOW)  # for variants of other names
COLOURS = (*VARIANTS.values(), *OTHERS)  # for as many things, in this order

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.w_pad": 0.12,  # inches, as is h_pad
    "figure.constrained_layout.h_pad": 0.1,
    "savefig.dpi": 150,
    "text.parse_math": False,  # a class may be called $1_$5
}


def variant_colours(names: Iterable[str]) -> dict[str, str]:
    """Each variant's colour, in all figures and in MLflow: by its name, so that it is the same from run to run.

    The three of the default comparison have their own. Another takes the one that its name comes to, or the next that
    no other of `names` has; beyond five others, some share one.
    """
    names = list(names)
    colours = {name: VARIANTS[name] for name in names if name in VARIANTS}
    for name in sorted({*names} - {*VARIANTS}):
        first = zlib.crc32(name.encode()) % len(OTHERS)
        choice = [*OTHERS[first:], *OTHERS[:first]]
        colours[name] = next((colour for colour in choice if colour not in colours.values()), choice[0])
    return {name: colours[name] for name in names}


@contextmanager
def figure(path: Path | str, width: float, height: float) -> Iterator["Figure"]:
    """Yield an empty figure of `width` × `height` inches; on success it is written to `path` as PNG.

    All text is shown as it is written, dollar signs too; a character that no font has is a box.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        canvas = Figure(figsize=(width, height), layout="constrained")
        yield canvas
        for axes in canvas.axes:
            _write_powers_out(axes.xaxis)
            _write_powers_out(axes.yaxis)
        with atomic_file(path) as temporary:
            canvas.savefig(temporary, format="png")


def _write_powers_out(axis: "Axis") -> None:
    """A logarithmic axis writes its powers as formulas, which are not parsed here: 1e+05 instead."""
    from matplotlib.ticker import LogFormatter, LogFormatterMathtext

    for formatter, replace in (
        (axis.get_major_formatter(), axis.set_major_formatter),
        (axis.get_minor_formatter(), axis.set_minor_formatter),
    ):
        if isinstance(formatter, LogFormatterMathtext):
            replace(LogFormatter(labelOnlyBase=formatter.labelOnlyBase))
