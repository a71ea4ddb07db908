"""What the data is, where it comes from and how it is augmented. No tensor library is imported here."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from unicodedata import normalize

TorchvisionName = Literal["CIFAR10", "CIFAR100", "SVHN", "STL10", "FashionMNIST", "MNIST"]
LONGEST_OOD_NAME = 64
LARGEST_STORED = 1024
EXECUTION = ("processes", "cache_gib")  # how images are read, not what comes out
RESERVED_NAMES = ("train", "val", "test", "near", "far", "mean")  # no OOD set may be called so


def composed(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names in Unicode's form NFC, so that those that look the same are the same."""
    return tuple(normalize("NFC", name) for name in names)


@dataclass(frozen=True)
class Source:
    """Where images come from: exactly one of builtin, folder, parquet and torchvision."""

    builtin: Literal["digits", "photo-patches"] | None = None
    folder: str | None = None
    parquet: str | tuple[str, ...] | None = None
    torchvision: TorchvisionName | None = None
    split: str | None = None  # torchvision: train, test, unlabeled, extra …
    root: str = "data/raw"  # torchvision: where archives are kept
    download: bool = True  # torchvision: fetch what is missing
    limit: int | None = None  # take at most so many images, a seeded random choice
    exclude_classes: tuple[str, ...] = ()  # class names to leave out
    min_class_images: int = 1  # classes of fewer images are left out

    def __post_init__(self) -> None:
        given = [k for k in ("builtin", "folder", "parquet", "torchvision") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(
                "a source names exactly one of builtin, folder, parquet, torchvision"
                + (f", not {' and '.join(given)}" if given else "")
            )
        if self.split is not None and self.torchvision is None:
            raise ValueError("`split` belongs to torchvision sources alone")
        if self.limit is not None and self.limit < 1:
            raise ValueError("`limit` must be at least 1")
        if self.min_class_images < 1:
            raise ValueError("`min_class_images` must be at least 1")
        object.__setattr__(self, "exclude_classes", composed(self.exclude_classes))


@dataclass(frozen=True)
class OodSet:
    """Images that the model shall flag: held-out classes, another source, or the test images with shuffled pixels."""

    distance: Literal["near", "far"]
    held_out_classes: tuple[str, ...] = ()
    source: Source | None = None
    shuffled_test: bool = False

    def __post_init__(self) -> None:
        if bool(self.held_out_classes) + (self.source is not None) + self.shuffled_test != 1:
            raise ValueError("an OOD set has exactly one of held_out_classes, source and shuffled_test: true")
        object.__setattr__(self, "held_out_classes", composed(self.held_out_classes))


@dataclass(frozen=True)
class Conversions:
    """How images become 8-bit grey or sRGB that are something else; the defaults give the look that a viewer shows."""

    transparent: Literal["white", "black", "reject"] | tuple[int, ...] = "white"  # the page; or red, green, blue
    deep: Literal["reject", "scale"] | tuple[float, ...] = "reject"  # over 8 bits: by the type's range, or [low, high]
    cmyk: Literal["convert", "reject"] = "convert"  # and Lab; by the embedded profile, where there is one
    profile: Literal["srgb", "ignore"] = "srgb"  # colours of another embedded profile: converted, or taken as they are
    animated: Literal["first", "reject"] = "reject"  # the first frame or page stands for the image

    def __post_init__(self) -> None:
        colour, limits = self.transparent, self.deep
        if not isinstance(colour, str) and not (len(colour) == 3 and all(0 <= level <= 255 for level in colour)):
            raise ValueError("transparent: a colour is three numbers between 0 and 255: red, green, blue")
        if not isinstance(limits, str) and not (len(limits) == 2 and limits[0] < limits[1]):
            raise ValueError("deep: a range is two numbers: what becomes black, and a larger one that becomes white")


@dataclass(frozen=True)
class DataConfig:
    """The image sets of a run. Pretraining uses `pretrain`, or the training split of `labelled` where it is null."""

    image_size: int
    channels: Literal[1, 3]
    labelled: Source
    pretrain: Source | None = None
    test: Source | None = None  # an official test set; null: carved out of `labelled`
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    stored_size: int | None = None  # side of the training images that views are cut out of; null: image_size
    resize: bool = False  # images of another size are resized (true) or quarantined (false)
    fit: Literal["crop", "pad", "stretch"] = "crop"  # of one that is not square, where images are resized
    convert: Conversions = field(default_factory=Conversions)
    max_quarantined: float = 0.01  # share of undecodable files that stops the run
    palette_colours: int = 512
    ood: dict[str, OodSet] = field(default_factory=dict)
    processes: int | None = None  # that decode images; null: as many as there are cores. Results are the same
    cache_gib: float = 1.0  # of decoded images that are kept for the next run; 0: none. Results are the same

    def __post_init__(self) -> None:
        if not 4 <= self.image_size <= 512:
            raise ValueError(f"image_size must lie between 4 and 512, not {self.image_size}")
        if self.stored_size is not None and not self.image_size <= self.stored_size <= LARGEST_STORED:
            raise ValueError(
                f"stored_size must lie between image_size ({self.image_size}) and {LARGEST_STORED}, not "
                f"{self.stored_size}: training cuts its views out of images of that size"
            )
        if self.finer and not self.resize:
            raise ValueError(f"stored_size: {self.stored_size} needs resize: true, for images are kept in two sizes")
        if not (0 < self.val_fraction < 1 and 0 < self.test_fraction < 1):
            raise ValueError("val_fraction and test_fraction must lie between 0 and 1, both exclusive")
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction + test_fraction must leave something to train on (be below 1)")
        if not 0 <= self.max_quarantined <= 1:
            raise ValueError("max_quarantined is a share between 0 and 1")
        if not 2 <= self.palette_colours <= 4096:
            raise ValueError("palette_colours must lie between 2 and 4096")
        if self.processes is not None and self.processes < 1:
            raise ValueError("processes must be at least 1")
        if self.cache_gib < 0:
            raise ValueError("cache_gib must be 0 (none) or more")
        for name in self.ood:
            if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) or len(name) > LONGEST_OOD_NAME:
                raise ValueError(
                    f"OOD set name {name[: LONGEST_OOD_NAME + 1]!a}: use up to {LONGEST_OOD_NAME} lower-case letters "
                    "(a to z), digits and hyphens, the first a letter or digit"
                )
            if name in RESERVED_NAMES:
                raise ValueError(f"OOD set name {name!r}: means something else in the metrics, choose another")

    @property
    def finer(self) -> int | None:
        """Side of the training images where they are kept larger than `image_size` as well, otherwise None."""
        return None if self.stored_size == self.image_size else self.stored_size

    @property
    def reading(self) -> dict[str, Any]:
        """The arguments of `decode.decode`: all that decides which pixels an image file becomes."""
        names = ("image_size", "channels", "resize", "fit")
        return {name: getattr(self, name) for name in names} | asdict(self.convert)


@dataclass(frozen=True)
class AugmentationConfig:
    """Ranges of the random transforms of a view. Zero switches a transform off."""

    crop_min_side: float = 1.0  # smallest share of the image's side, not of its area, that a crop keeps
    crop_aspect: float = 1.0  # largest ratio of a crop's sides; SimCLR's is 4/3
    flip: bool = False
    rotate_degrees: float = 0.0
    shear_degrees: float = 0.0
    translate: float = 0.0  # share of the image's side
    brightness: float = 0.0  # strengths as in torchvision's ColorJitter
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0  # share of a full turn
    greyscale_probability: float = 0.0
    blur_probability: float = 0.0  # SimCLR's is 0.5, none on 32×32 images
    jitter_probability: float = 0.8  # of a change of brightness, contrast, saturation and hue
    unaltered_probability: float = 0.2  # of none of these transforms
    padding: Literal["zeros", "border", "reflection"] = "reflection"  # what a view shows beyond the image's edge

    def __post_init__(self) -> None:
        if not 0 < self.crop_min_side <= 1:
            raise ValueError("crop_min_side must lie in (0, 1]")
        if self.crop_aspect < 1:
            raise ValueError("crop_aspect must be at least 1: it is the longer side over the shorter")
        for name in ("greyscale_probability", "blur_probability", "jitter_probability", "unaltered_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability between 0 and 1")
        for name in ("rotate_degrees", "shear_degrees", "translate", "brightness", "contrast", "saturation", "hue"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
