import hashlib
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.data.decode import decode
from components.errors import UserError
from components.export.reference import EMBEDDINGS, Reference
from components.monitoring.incoming import list_incoming
from components.monitoring.scoring import Scorer
from components.plotting import monitoring as figures

ROOT = Path(__file__).parents[3]


@pytest.fixture
def scorer(model, reference, tmp_path) -> Scorer:
    reference.save(tmp_path / "reference.npz")
    return Scorer(model, tmp_path / "reference.npz")


def test_the_reference_is_what_the_model_says_of_the_images(model, reference, draw):
    images = draw(300)
    brightness = images.astype(float).reshape(300, -1).mean(1) / 255
    assert reference.ood_score == pytest.approx(brightness, abs=1e-6)
    assert reference.is_ood.tolist() == (brightness > 0.6).tolist()
    assert reference.predicted.tolist() == (brightness > 0.5).astype(int).tolist()
    assert reference.mean[:, 0] == pytest.approx(255 * brightness)
    assert reference.std[:, 0] == pytest.approx(images.reshape(300, -1).std(1))
    assert reference.embedding.shape == (300, 4)
    many = Reference.of(model, draw(EMBEDDINGS + 5), ("dark", "bright"), {}, 0.08, 0.6)
    assert (len(many.embedding), len(many.ood_score)) == (EMBEDDINGS, EMBEDDINGS + 5)


def test_a_reference_is_read_as_it_was_written(reference, tmp_path):
    reference.save(tmp_path / "reference.npz")
    again = asdict(Reference.load(tmp_path / "reference.npz"))
    for name, value in asdict(reference).items():
        assert again[name].dtype == value.dtype
        assert np.array_equal(again[name], value), name


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_a_damaged_reference_is_told(reference, tmp_path, damage):
    path = tmp_path / "reference.npz"
    if damage is None:
        np.savez(path, classes=reference.classes)  # of another version
    else:
        path.write_bytes(damage)
    with pytest.raises(UserError, match=r"reference\.npz: not a reference that the export stage wrote"):
        Reference.load(path)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_predictions_are_the_models_in_any_batches(scorer, folder, draw, tmp_path, batch_size):
    images = draw(30)
    files = list_incoming(folder(images)).images
    scored = scorer.score(files, tmp_path / "predictions.parquet", batch_size, {"model_version": "7"})
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert table.schema.metadata[b"model_version"] == b"7"
    rows = table.to_pydict()
    brightness = images.reshape(30, -1).mean(1) / 255
    sure = 1 / (1 + np.exp(-2 * np.abs(4 * (brightness - 0.5))))
    assert rows["path"] == scored.path == [f"{i:05}.png" for i in range(30)]
    assert rows["sha256"] == scored.sha256 == [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    assert rows["predicted_class"] == ["bright" if value > 0.5 else "dark" for value in brightness]
    assert rows["probability"] == pytest.approx(sure.tolist(), abs=1e-5)
    assert rows["ood_score"] == pytest.approx(brightness.tolist(), abs=1e-6)
    assert rows["is_ood"] == scored.is_ood.tolist() == (brightness > 0.6).tolist()
    assert np.sort(scored.embedding.mean(1)) == pytest.approx(np.sort(brightness), abs=1e-6)
    assert scored.mean[:, 0] == pytest.approx(255 * brightness)
    assert scored.unusable == []


def test_a_large_batch_keeps_a_fair_choice_of_embeddings(scorer, folder, draw, tmp_path, monkeypatch):
    monkeypatch.setattr("components.monitoring.scoring.EMBEDDINGS", 100)
    images = np.sort(draw(400).reshape(400, -1), axis=0).reshape(-1, 4, 4, 1)  # from dark to bright
    scored = scorer.score(list_incoming(folder(images)).images, tmp_path / "predictions.parquet", 32, {})
    assert scored.embedding.shape == (100, 4)
    assert len(np.unique(scored.embedding, axis=0)) == 100
    assert scored.embedding.mean() == pytest.approx(0.5, abs=0.12)  # 4 standard errors


def test_what_is_no_image_for_the_model_is_listed_with_the_reason(scorer, folder, draw, tmp_path):
    from PIL import Image

    path = folder(draw(3))
    Image.new("L", (5, 4)).save(path / "large.png")
    Image.new("RGB", (4, 4), (90, 90, 90)).save(path / "colour.png")
    (path / "empty.png").touch()
    (path / "gone.png").touch()
    files = list_incoming(path).images
    (path / "gone.png").unlink()
    scored = scorer.score(files, tmp_path / "predictions.parquet", 2, {})
    reasons = dict(scored.unusable)
    assert set(reasons) == {"large.png", "empty.png", "gone.png"}
    assert reasons["large.png"].startswith("size is 5×4, expected 4×4")
    assert reasons["empty.png"] == "empty file"
    assert "No such file" in reasons["gone.png"]
    assert scored.path == ["00000.png", "00001.png", "00002.png", "colour.png"]
    assert scored.mean[3] == pytest.approx([90])


def test_other_sizes_are_resized_where_the_training_images_were(model, reference, folder, draw, tmp_path):
    from PIL import Image

    resizing = {**asdict(reference), "reading": np.array(json.dumps({"resize": True}))}
    Reference(**resizing).save(tmp_path / "reference.npz")
    scorer = Scorer(model, tmp_path / "reference.npz")
    path = folder(draw(1))
    Image.effect_noise((9, 6), 80).save(path / "large.png")
    scored = scorer.score(list_incoming(path).images, tmp_path / "predictions.parquet", 2, {})
    assert scored.unusable == []
    expected = decode((path / "large.png").read_bytes(), 4, 1, resize=True)
    assert scored.sha256[1] == hashlib.sha256(expected.tobytes()).hexdigest()


def test_files_are_read_as_those_for_training_were(model, reference, folder, draw, tmp_path):
    from PIL import Image

    reading = {"resize": True, "fit": "pad", "transparent": "black", "deep": [0, 1000]}
    Reference(**{**asdict(reference), "reading": np.array(json.dumps(reading))}).save(tmp_path / "reference.npz")
    path = folder(draw(1))
    Image.new("LA", (8, 4), (200, 128)).save(path / "clear.png")
    Image.fromarray(np.full((4, 4), 500, dtype=np.uint16)).save(path / "deep.png")
    scored = Scorer(model, tmp_path / "reference.npz").score(
        list_incoming(path).images, tmp_path / "predictions.parquet", 2, {}
    )
    assert scored.path == ["00000.png", "clear.png", "deep.png"]
    for number, file in enumerate(scored.path):
        expected = decode(path / file, 4, 1, **reading)
        assert scored.sha256[number] == hashlib.sha256(expected.tobytes()).hexdigest()
    assert scored.mean[2] == pytest.approx([127.5], abs=0.5)


def test_nothing_usable_at_all(scorer, folder, draw, tmp_path):
    path = folder(draw(0))
    (path / "broken.png").write_bytes(b"no image")
    scored = scorer.score(list_incoming(path).images, tmp_path / "predictions.parquet", 2, {})
    assert (len(scored.unusable), len(scored.path), len(scored.is_ood)) == (1, 0, 0)
    assert pq.read_table(tmp_path / "predictions.parquet").num_rows == 0


def test_another_model_is_refused(model, reference, tmp_path):
    import onnx

    path = tmp_path / "reference.npz"
    changed = onnx.load(model)
    changed.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    onnx.save(changed, tmp_path / "integers.onnx")
    reference.save(path)
    with pytest.raises(UserError, match=r"takes .*int32.*expected one uint8 `image` of shape \(N, size"):
        Scorer(tmp_path / "integers.onnx", path)

    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"broken\.onnx: ONNX Runtime can't open it"):
        Scorer(tmp_path / "broken.onnx", path)

    Reference(**{**asdict(reference), "classes": np.array(["one", "two", "three"])}).save(path)
    with pytest.raises(UserError, match="don't belong together"):
        Scorer(model, path)


@pytest.mark.parametrize(("low", "high"), [(0, 256), (100, 256), (255, 256)])
def test_figures(scorer, folder, draw, tmp_path, low, high):
    from PIL import Image

    images = draw(40, low, high)
    scored = scorer.score(list_incoming(folder(images)).images, tmp_path / "predictions.parquet", 64, {})
    figures.score_histogram(scored, scorer.reference, tmp_path / "scores.png")
    figures.embedding_projection(scored, scorer.reference, tmp_path / "embeddings.png")
    for name in ("scores.png", "embeddings.png"):
        drawn = np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)
        warmth = drawn[..., 0] - drawn[..., 2]
        assert min(warmth.shape) > 400
        assert (warmth > 60).sum() > 20  # the batch
        assert (warmth < -60).sum() > 100  # the reference


def test_scoring_needs_neither_torch_nor_an_orchestrator():
    code = (
        "import sys; import components.monitoring.drift, components.plotting.monitoring, components.monitoring.scoring;"
        "print(sorted({'torch', 'mlflow', 'prefect', 'dvc', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
