"""torchvision's own download and reading code, on small archives in each set's real format behind a local server."""

import gzip
import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from torchvision import datasets

from components.data.config import Source
from components.data.sources.listing import Listing
from components.data.sources.open import open_source
from components.errors import UserError

RNG = np.random.default_rng(0)
LABELS = np.array([3, 0, 9, 1])


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the local address under which it is served."""
    folder = tmp_path / "site"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=partial(server.serve_forever, poll_interval=0.01), daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def tar(path: Path, files: dict[str, bytes]) -> str:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return md5(path.read_bytes())


def listed(tmp_path: Path, name: str, split: str, **options: Any) -> tuple[Listing, list[np.ndarray]]:
    source = Source(torchvision=name, split=split, root=str(tmp_path / "raw"), **options)  # type: ignore[arg-type]
    listing = open_source(source, "data.labelled", 32, labelled=split != "unlabeled")
    return listing, [np.asarray(image) for image in listing.read(np.arange(len(listing.paths)))]


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_cifar(name: str, site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = getattr(datasets, name)
    batches = [file for file, _ in cls.train_list + cls.test_list]
    images = {file: RNG.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8) for file in batches}
    key = "labels" if name == "CIFAR10" else "fine_labels"
    names = [f"class {i}" for i in range(10)]
    files = {f: pickle.dumps({"data": x.reshape(4, -1), key: LABELS.tolist()}) for f, x in images.items()}
    files[cls.meta["filename"]] = pickle.dumps({cls.meta["key"]: names})
    folder, url = site
    archive = tar(folder / cls.filename, {f"{cls.base_folder}/{file}": content for file, content in files.items()})
    monkeypatch.setattr(cls, "url", url + cls.filename)
    monkeypatch.setattr(cls, "tgz_md5", archive)
    monkeypatch.setattr(cls, "train_list", [[f, md5(files[f])] for f, _ in cls.train_list])
    monkeypatch.setattr(cls, "test_list", [[f, md5(files[f])] for f, _ in cls.test_list])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5(files[cls.meta["filename"]])})

    listing, read = listed(tmp_path, name, "train")
    train = [file for file, _ in cls.train_list]
    np.testing.assert_array_equal(np.stack(read), np.concatenate([images[f] for f in train]).transpose(0, 2, 3, 1))
    assert listing.labels is not None
    np.testing.assert_array_equal(listing.labels, np.tile(LABELS, len(train)))
    assert listing.classes == tuple(names)
    listing, read = listed(tmp_path, name, "test", download=False)
    np.testing.assert_array_equal(np.stack(read), images[batches[-1]].transpose(0, 2, 3, 1))
    assert listing.paths[2] == f"{name}-test#2"


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_mnist(name: str, site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = getattr(datasets, name)
    folder, url = site
    resources, images = [], {}
    for prefix in ("train", "t10k"):
        images[prefix] = RNG.integers(0, 256, (4, 28, 28), dtype=np.uint8)
        for kind, array in (("images-idx3", images[prefix]), ("labels-idx1", LABELS.astype(np.uint8))):
            shape = b"".join(size.to_bytes(4, "big") for size in array.shape)
            content = gzip.compress(bytes([0, 0, 8, array.ndim]) + shape + array.tobytes(), mtime=0)
            (folder / f"{prefix}-{kind}-ubyte.gz").write_bytes(content)
            resources.append((f"{prefix}-{kind}-ubyte.gz", md5(content)))
    monkeypatch.setattr(cls, "mirrors", [url])
    monkeypatch.setattr(cls, "resources", resources)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        listing, read = listed(tmp_path, name, split)
        np.testing.assert_array_equal(np.stack(read), images[prefix])
        assert listing.labels is not None
        np.testing.assert_array_equal(listing.labels, LABELS)
        assert listing.classes == tuple(cls.classes)


def test_svhn(site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, url = site
    images = RNG.integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    stored = np.where(LABELS == 0, 10, LABELS)[:, None].astype(np.uint8)  # the set calls the digit 0 class 10
    scipy.io.savemat(folder / "extra_32x32.mat", {"X": images, "y": stored})
    entry = [url + "extra_32x32.mat", "extra_32x32.mat", md5((folder / "extra_32x32.mat").read_bytes())]
    monkeypatch.setattr(datasets.SVHN, "split_list", {"extra": entry})
    listing, read = listed(tmp_path, "SVHN", "extra")
    np.testing.assert_array_equal(np.stack(read), images.transpose(3, 0, 1, 2))
    assert listing.labels is not None
    np.testing.assert_array_equal(listing.labels, LABELS)
    assert listing.classes == tuple("0123456789")


def test_stl10(site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, url = site
    images = {split: RNG.integers(0, 256, (4, 3, 96, 96), dtype=np.uint8) for split in ("train", "test", "unlabeled")}
    files = {f"{split}_X.bin": x.transpose(0, 1, 3, 2).tobytes() for split, x in images.items()}  # column-major
    files |= {f"{split}_y.bin": (LABELS + 1).astype(np.uint8).tobytes() for split in ("train", "test")}
    names = [f"class {i}" for i in range(10)]
    archive = tar(
        folder / "stl10_binary.tar.gz",
        {f"stl10_binary/{f}": c for f, c in {**files, "class_names.txt": "\n".join(names).encode()}.items()},
    )
    monkeypatch.setattr(datasets.STL10, "url", url + "stl10_binary.tar.gz")
    monkeypatch.setattr(datasets.STL10, "tgz_md5", archive)
    for attribute in ("train_list", "test_list"):
        checked = [[f, md5(files[f])] for f, _ in getattr(datasets.STL10, attribute)]
        monkeypatch.setattr(datasets.STL10, attribute, checked)
    for split in ("train", "test", "unlabeled"):
        listing, read = listed(tmp_path, "STL10", split)
        np.testing.assert_array_equal(np.stack(read), images[split].transpose(0, 2, 3, 1))
        assert listing.has_labels == (split != "unlabeled")
        assert listing.class_names(np.array([0])) == (["class 3"] if split != "unlabeled" else [""])


def test_a_failed_download_says_so(site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, url = site
    monkeypatch.setattr(datasets.CIFAR10, "url", url + "nowhere.tar.gz")
    message = r"data\.labelled\.torchvision: CIFAR10 could not be downloaded to or read from .*raw.*404"
    with pytest.raises(UserError, match=message):
        listed(tmp_path, "CIFAR10", "train")
    (folder / "nowhere.tar.gz").write_bytes(b"not the archive")
    with pytest.raises(UserError, match="not found or corrupted"):
        listed(tmp_path, "CIFAR10", "train")
    with pytest.raises(UserError, match="CIFAR10 could not be read from"):
        listed(tmp_path, "CIFAR10", "train", download=False)


def test_an_unknown_split_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="CIFAR10 has no split 'unlabeled', only train, test"):
        listed(tmp_path, "CIFAR10", "unlabeled")
