"""The champion on other images: `compare` lets its file answer once more, and decides on what neither model knows."""

import json
import os

import numpy as np
import pytest

from components.data.prepared import Prepared
from components.monitoring.champion_comparison import scores

pytestmark = pytest.mark.e2e


def test_champion_and_challenger_meet_on_the_images_that_neither_knows(finished, scratch, stage):
    from mlflow import MlflowClient

    scratch.edit({"seed": 1})
    assert stage(scratch, "prepare").code == 0  # as new images would, it divides them anew
    uri = os.environ["MLFLOW_TRACKING_URI"]  # of the fixture
    client = MlflowClient(uri, uri)
    versions = {v.tags["variant"]: str(v.version) for v in client.search_model_versions("name = 'gcrl'")}
    best = json.loads((scratch.root / "outputs/compare/results.json").read_text())["constants"]["best"]
    (other,) = versions.keys() - {best}
    client.set_registered_model_alias("gcrl", "champion", versions[other])
    told = stage(scratch, "compare").out

    before, now = (Prepared.open(project.root / "data/prepared") for project in (finished, scratch))
    known = {*before.sha256("train"), *before.sha256("val")}
    rows = {
        split: np.array([n for n, image in enumerate(now.sha256(split)) if image not in known])
        for split in ("test", *(f"ood-{name}" for name in now.ood))
    }
    assert 0 < len(rows["test"]) < len(now.images("test"))
    exports = [scratch.root / "outputs" / variant / "export" for variant in (best, other)]
    challenger, champion = (
        np.mean([*scores(export / "model.onnx", export / "reference.npz", now, rows).values()]) for export in exports
    )
    winner, verb, relation = (best, "is now", "not below") if challenger >= champion else (other, "stays", "below")
    assert f"Champion of gcrl {verb} version {versions[winner]}: " in told
    assert (
        f"{challenger:.4f} is {relation} the champion's {champion:.4f} on the {len(rows['test'])} test images" in told
    )
