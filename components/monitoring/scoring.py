"""A registered model at work: files in, one row of predictions an image out, without holding the images in memory."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.data.decoders import Decoders
from components.errors import UserError
from components.export.reference import EMBEDDINGS, Reference, pixel_statistics
from components.export.session import INPUT, OUTPUTS, open_session, run_session
from components.files import atomic_file
from components.monitoring.incoming import IncomingFile

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
SCHEMA = pa.schema(
    {
        "path": pa.string(),  # in the incoming folder
        "sha256": pa.string(),  # of the decoded pixels, as in the manifest of the training images
        "predicted_class": pa.string(),
        "probability": pa.float32(),  # of that class
        "ood_score": pa.float32(),
        "is_ood": pa.bool_(),
    }
)


class Unusable(NamedTuple):
    """A file that is no image the model can take."""

    path: str
    reason: str


@dataclass(frozen=True)
class Scored:
    """What is kept of a batch: some numbers an image, and a random choice of embeddings. N images could be used."""

    path: list[str]
    sha256: list[str]
    predicted: np.ndarray  # int64 (N,)
    ood_score: np.ndarray  # float32 (N,)
    is_ood: np.ndarray  # bool (N,)
    mean: np.ndarray  # (N, C) of each image's pixels, 0 to 255
    std: np.ndarray  # (N, C)
    embedding: np.ndarray  # float32 (E, D)
    unusable: list[Unusable]


class Scorer:
    """An exported model and its reference, opened; ONNX Runtime computes on CUDA where its package has that."""

    def __init__(self, model: Path, reference: Path) -> None:
        """Raises UserError where the file is no model that the export stage wrote, or the two don't belong together."""
        self.reference = Reference.load(reference)
        try:
            self.session = open_session(model, PROVIDERS)
        except Exception as error:  # onnxruntime has a dozen kinds
            raise UserError(f"{model.name}: ONNX Runtime can't open it ({error})") from error
        self.image_size, self.channels = self._input()
        self.reading = json.loads(str(self.reference.reading))
        size = {"image_size": self.image_size, "channels": self.channels}
        self._decoders = Decoders(self.reading | size)

    @property
    def takes(self) -> str:
        """The images it takes, in words."""
        size = f"{self.image_size}×{self.image_size} {'grey' if self.channels == 1 else 'RGB'} images"
        return f"{size}, resizing others" if self.reading.get("resize") else size

    def _input(self) -> tuple[int, int]:
        taken = [(value.name, value.type, *value.shape[1:]) for value in self.session.get_inputs()]
        given = {value.name: value.shape[1:] for value in self.session.get_outputs()}
        match taken:
            case [(name, "tensor(uint8)", int(height), int(width), 1 | 3 as channels)] if (
                name == INPUT and height == width and set(OUTPUTS) <= given.keys()
            ):
                pass
            case _:
                raise UserError(
                    f"the model takes {taken} and gives {sorted(given)}; expected one uint8 `{INPUT}` of shape "
                    f"(N, size, size, 1 or 3), and {', '.join(OUTPUTS)}, as the export stage writes them"
                )
        expected = {"embedding": self.reference.embedding.shape[1:], "probabilities": self.reference.classes.shape}
        if self.reference.mean.shape[1] != channels or any(tuple(given[k]) != v for k, v in expected.items()):
            raise UserError("the model and its reference don't belong together: their shapes differ")
        return height, channels

    def answers(
        self, files: Sequence[IncomingFile], batch_size: int, unusable: list[Unusable]
    ) -> Iterator[tuple[list[str], np.ndarray, dict[str, np.ndarray]]]:
        """Names, uint8 images (N, H, W, C) and the model's outputs of the files that can be used, a batch at a time.

        Batches hold at most `batch_size` images and at least one. Files that cannot be used are appended to `unusable`.
        """
        for start in range(0, len(files), batch_size):
            names, images = self._read(files[start : start + batch_size], unusable)
            if names:
                yield names, images, run_session(self.session, images)

    def score(self, files: Sequence[IncomingFile], out: Path, batch_size: int, metadata: Mapping[str, str]) -> Scored:
        """Write the predictions of these files to the Parquet file `out`, with `metadata` in its schema.

        At most `batch_size` images are in memory together. With no usable image at all the file has no rows.
        """
        unusable: list[Unusable] = []
        parts: list[dict[str, Any]] = []
        sample = _Sample(self.reference.embedding.shape[1])
        schema = SCHEMA.with_metadata(dict(metadata))
        with atomic_file(out) as temporary, pq.ParquetWriter(temporary, schema) as writer:
            for paths, images, answers in self.answers(files, batch_size, unusable):
                sample.add(answers["embedding"])
                predicted = answers["probabilities"].argmax(1)
                part = {
                    "path": paths,
                    "sha256": [hashlib.sha256(image.tobytes()).hexdigest() for image in images],
                    "ood_score": answers["ood_score"],
                    "is_ood": answers["is_ood"],
                }
                named = {
                    "predicted_class": self.reference.classes[predicted],
                    "probability": answers["probabilities"].max(1),
                }
                writer.write_table(pa.table(part | named).select(SCHEMA.names).cast(schema))
                parts.append(part | {"predicted": predicted} | pixel_statistics(images))
        names = ("predicted", "ood_score", "is_ood", "mean", "std")
        arrays = {name: np.concatenate([part[name] for part in parts]) if parts else np.empty(0) for name in names}
        path, sha256 = ([value for part in parts for value in part[name]] for name in ("path", "sha256"))
        return Scored(path, sha256, **arrays, embedding=sample.rows, unusable=unusable)

    def _read(self, files: Sequence[IncomingFile], unusable: list[Unusable]) -> tuple[list[str], np.ndarray]:
        """Names and uint8 (N, H, W, C) of the files that can be used; the others are appended to `unusable`."""
        names, images = [], []
        answers = self._decoders.decode((Path(file.path) for file in files), len(files))
        for file, answer in zip(files, answers, strict=True):
            if isinstance(answer, str):
                unusable.append(Unusable(file.name, answer))
            else:
                names.append(file.name)
                images.append(answer.pixels)
        return names, np.array(images)


class _Sample:
    """A random choice of at most EMBEDDINGS of all rows that were added, the same for the same rows."""

    def __init__(self, size: int) -> None:
        self.rows = np.empty((0, size), dtype=np.float32)
        self._keys = np.empty(0)
        self._rng = np.random.default_rng(0)

    def add(self, rows: np.ndarray) -> None:
        keys = np.concatenate([self._keys, self._rng.random(len(rows))])
        kept = np.sort(np.argsort(keys)[:EMBEDDINGS])
        self.rows, self._keys = np.concatenate([self.rows, rows])[kept], keys[kept]
