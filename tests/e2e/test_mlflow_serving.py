"""`mlflow models serve -m models:/gcrl@champion` answers real requests with images, good ones and bad ones."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def server(finished, listening: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    command = ("models", "serve", "-m", "models:/gcrl@champion", "--env-manager", "local")
    return listening(tmp_path_factory.mktemp("serving"), *command, MLFLOW_TRACKING_URI=finished.uri)


@pytest.fixture(scope="module")
def images(finished) -> np.ndarray:
    return np.load(finished.root / "data/prepared/test.npy")[:5]


@pytest.fixture(scope="module")
def expected(finished, images) -> dict[str, np.ndarray]:
    from mlflow import MlflowClient

    champion = MlflowClient(finished.uri, finished.uri).get_model_version_by_alias("gcrl", "champion")
    path = finished.root / f"outputs/{champion.tags['variant']}/export/model.onnx"
    session = onnxruntime.InferenceSession(path)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, {"image": images}), strict=True))


def ask(server: str, body: Any, content: str = "application/json") -> tuple[int, Any]:
    """POST to /invocations; the status and the answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{server}/invocations", data, {"Content-Type": content})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("form", ["inputs", "instances"])
def test_images_get_the_answers_of_onnxruntime(server, images, expected, count, form):
    pixels = images[:count].tolist()
    body = {"inputs": {"image": pixels}} if form == "inputs" else {"instances": [{"image": p} for p in pixels]}
    status, answer = ask(server, body)
    assert status == 200
    assert set(answer["predictions"]) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(answer["predictions"][name], values[:count], atol=1e-5)


def bad(images: np.ndarray) -> dict[str, tuple[Any, str]]:
    """{what is wrong: (body, what the answer must mention)}"""
    good = images.tolist()
    return {
        "another size": ({"inputs": {"image": np.zeros((1, 4, 4, 1), int).tolist()}}, "does not match expected shape"),
        "one image without its batch axis": ({"inputs": {"image": good[0]}}, "does not match expected shape"),
        "images of unequal sizes": ({"inputs": {"image": [good[0], [[1]]]}}, "inhomogeneous shape"),
        "above 255": ({"inputs": {"image": (images.astype(int) + 256).tolist()}}, "out of bounds for uint8"),
        "below 0": ({"inputs": {"image": (images.astype(int) - 256).tolist()}}, "out of bounds for uint8"),
        "text": ({"inputs": {"image": "cat.png"}}, "invalid literal"),
        "null": ({"inputs": {"image": None}}, "NoneType"),
        "no image": ({"inputs": {"image": []}}, "does not match expected shape"),
        "no field": ({"inputs": {}}, "missing inputs ['image']"),
        "another field": ({"inputs": {"picture": good}}, "missing inputs ['image']"),
        "an empty object": ({}, "exactly one of the input fields"),
        "a list": (good, "exactly one of the input fields"),
        "not JSON": (b"\x89PNG", "valid JSON"),
        "nothing": (b"", "valid JSON"),
    }


@pytest.mark.parametrize("what", bad(np.zeros((1, 1, 1, 1), np.uint8)))
def test_bad_requests_are_refused_with_the_reason(server, images, what):
    body, reason = bad(images)[what]
    status, answer = ask(server, body)
    assert status == 400, answer
    assert reason in answer


def test_another_content_type_is_refused_and_the_server_lives(server, images):
    status, answer = ask(server, b"\x89PNG", "image/png")
    assert (status, "application/json" in answer) == (415, True)
    assert ask(server, {"inputs": {"image": images[:1].tolist()}})[0] == 200
