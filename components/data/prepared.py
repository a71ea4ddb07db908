"""Reading a prepared data set: the one door to the images, labels and palette that `prepare` wrote."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import UserError
from components.files import read_array, read_json, read_table


@dataclass(frozen=True)
class Prepared:
    """A prepared folder: uint8 images by split, their labels, the palette and what is known about them.

    Splits are named `train`, `val`, `test`, `pretrain` (only where it differs from train) and `ood-NAME`.
    """

    root: Path
    meta: dict[str, Any]  # the content of dataset.json

    @classmethod
    def open(cls, root: Path | str) -> "Prepared":
        """Open the folder that the stage prepare wrote; a UserError says so where it is missing."""
        root = Path(root)
        if not (root / "dataset.json").is_file():
            raise UserError(
                f"{root}: no prepared data set there (dataset.json is missing). Run `dvc repro prepare` first."
            )
        return cls(root=root, meta=read_json(root / "dataset.json"))

    def images(self, split: str) -> np.ndarray:
        """Images of a split, memory-mapped read-only: uint8 (N, H, W, C)."""
        self._known(split)
        return read_array(self.root / f"{split}.npy", "uint8", 4, mapped=True)

    def finer(self) -> np.ndarray | None:
        """The images of the pretraining split with more pixels, memory-mapped: uint8 (N, S, S, C); None where
        `data.stored_size` asks for none. Row i is image i."""
        if self.finer_size is None:
            return None
        return read_array(self.root / "finer.npy", "uint8", 4, mapped=True)

    def labels(self, split: str) -> np.ndarray:
        """Labels of a split: int64 (N,), −1 where an image has none."""
        self._known(split)
        return self._labels[split].copy()

    def sha256(self, split: str) -> list[str]:
        """SHA-256 (hex) of the pixels of each image of a split."""
        self._known(split)
        rows = read_table(self.root / "manifest.parquet", ["sha256"], filters=[("split", "=", split)])
        return list(rows["sha256"].to_pylist())

    @cached_property
    def palette(self) -> np.ndarray:
        """Colours of the training pixels, sorted: uint8 (K, C)."""
        return read_array(self.root / "palette.npy", "uint8", 2)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; label i means classes[i]."""
        return tuple(self._fact("classes"))

    @property
    def splits(self) -> tuple[str, ...]:
        """Every split, in the order in which it was written."""
        return tuple(self._fact("splits"))

    @property
    def pretrain_split(self) -> str:
        """The split that pretraining uses: `pretrain`, or `train` where there is no set of its own."""
        return "pretrain" if "pretrain" in self.splits else "train"

    @property
    def ood(self) -> dict[str, str]:
        """OOD sets: name → `near` or `far`. The images of NAME are the split `ood-NAME`."""
        return dict(self._fact("ood"))

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return int(self._fact("image_size"))

    @property
    def finer_size(self) -> int | None:
        """Height and width of the finer training images, where there are some."""
        return self.meta["finer"]["size"] if "finer" in self.meta else None

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return int(self._fact("channels"))

    @property
    def reading(self) -> dict[str, Any]:
        """The arguments of `decode.decode` with which image files became these images."""
        return dict(self._fact("reading"))

    @property
    def converted(self) -> dict[str, int]:
        """Conversions that were made, and of how many images of all sources."""
        counts: Counter[str] = Counter()
        for source in self._fact("sources").values():
            counts.update(source["converted"])
        return dict(counts.most_common())

    def fingerprint(self, split: str | None = None) -> str:
        """SHA-256 (hex) over the ordered image hashes and labels of a split, or over all splits."""
        if split is None:
            return str(self._fact("fingerprint"))
        self._known(split)
        return str(self.meta["splits"][split]["fingerprint"])

    def training_fingerprint(self) -> str:
        """Text that is another one where pretraining sees other images."""
        finer = self.meta["finer"]["sha256"] if "finer" in self.meta else ""
        return self.fingerprint(self.pretrain_split) + finer

    @cached_property
    def _labels(self) -> dict[str, np.ndarray]:
        table = read_table(self.root / "manifest.parquet", ["split", "label"])
        split, label = table["split"].to_numpy(), table["label"].to_numpy().astype(np.int64)
        return {name: label[split == name] for name in self.splits}

    def _fact(self, key: str) -> Any:
        if key not in self.meta:
            raise UserError(
                f"{self.root / 'dataset.json'}: no {key!r} in it. Run `dvc repro prepare`: it writes it anew."
            )
        return self.meta[key]

    def _known(self, split: str) -> None:
        if split not in self.splits:
            raise UserError(f"{self.root}: no split {split!r}; it has {', '.join(self.splits)}.")
