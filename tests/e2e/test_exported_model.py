"""The ONNX file with nothing but ONNX Runtime, as whoever gets it will use it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from components.evaluation.ood.score_table import read_scores

pytestmark = pytest.mark.e2e

VARIANTS = ("hybrid", "contrastive")


@pytest.fixture(params=VARIANTS)
def variant(request) -> str:
    return request.param


@pytest.fixture
def session(finished, variant):
    import onnxruntime

    path = finished.root / f"outputs/{variant}/export/model.onnx"
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_inputs_and_outputs(session):
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape[1:]) == ("image", "tensor(uint8)", [8, 8, 1])
    assert isinstance(image.shape[0], str)  # a dynamic dimension
    assert [o.name for o in session.get_outputs()] == ["embedding", "probabilities", "ood_score", "is_ood"]


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("split", ["test", "ood-photo-patches"])
def test_it_answers_as_the_pipeline_did(finished, variant, session, split, size):
    images = np.load(finished.root / f"data/prepared/{split}.npy")[:20]
    parts = [session.run(None, {"image": images[i : i + size]}) for i in range(0, len(images), size)]
    embedding, probabilities, score, is_ood = (np.concatenate(outputs) for outputs in zip(*parts, strict=True))
    folder = finished.root / "outputs" / variant
    threshold = json.loads((folder / "ood/thresholds.json").read_text())["fused"]
    assert probabilities.sum(1) == pytest.approx(np.ones(20), abs=1e-5)
    assert (probabilities >= 0).all()
    assert is_ood.dtype == bool
    assert (is_ood == (score > np.float32(threshold))).all()
    assert embedding == pytest.approx(np.load(folder / f"embed/{split}.features.npy")[:20], abs=1e-3)
    expected = read_scores(folder / "ood/scores.parquet")["fused"][split.removeprefix("ood-")][:20]
    assert score == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_what_is_nothing_like_the_training_images_is_flagged(finished, session):
    patches = np.load(finished.root / "data/prepared/ood-photo-patches.npy")
    digits = np.load(finished.root / "data/prepared/test.npy")
    (flagged,) = session.run(["is_ood"], {"image": patches})
    (alarms,) = session.run(["is_ood"], {"image": digits})
    assert flagged.mean() > 0.9
    assert alarms.mean() < 0.15


def test_it_needs_no_other_file_and_none_of_this_project(finished, variant, tmp_path):
    (tmp_path / "model.onnx").write_bytes((finished.root / f"outputs/{variant}/export/model.onnx").read_bytes())
    code = (
        "import sys, numpy, onnxruntime; "
        "session = onnxruntime.InferenceSession('model.onnx'); "
        "answer = session.run(None, {'image': numpy.zeros((2, 8, 8, 1), numpy.uint8)}); "
        "print([a.shape for a in answer], 'torch' in sys.modules, 'components' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[(2, 16), (2, 8), (2,), (2,)] False False"


def test_the_card_names_what_a_user_must_know(finished, variant):
    card = (finished.root / f"outputs/{variant}/export/card.md").read_text()
    results = json.loads((finished.root / f"outputs/{variant}/probe/results.json").read_text())
    fingerprint = json.loads((finished.root / "data/prepared/dataset.json").read_text())["fingerprint"]
    for told in (variant, "uint8", "(N, 8, 8, 1)", "ood_score", "is_ood", fingerprint[:12]):
        assert told in card
    assert f"{results['metrics']['linear_accuracy']:.1%}" in card
