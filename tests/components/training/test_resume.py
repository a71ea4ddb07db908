"""A run that is interrupted or killed, and goes on from its resume file."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.errors import UserError
from components.model.build import Architecture, save_weights
from components.model.config import ModelConfig
from components.model.gcrl import GCRL
from components.objectives.clustering.local_aggregation import LocalAggregationConfig
from components.objectives.config import VariantConfig
from components.objectives.contrastive.instdisc import InstDiscConfig
from components.objectives.contrastive.moco import MoCoConfig
from components.objectives.contrastive.nt_xent import NTXentConfig
from components.objectives.contrastive.pirl import PIRLConfig
from components.objectives.generative.autoregressive import AutoregressiveConfig
from components.objectives.generative.permuted import PermutedConfig
from components.objectives.generative.pixelcnn import PixelCNNConfig
from components.objectives.registry import CONTRASTIVE, GENERATIVE
from components.training.checkpoint import saved_step
from components.training.loop import pretrain
from tests.components.training.small_runs import AUGMENTATION, CONFIG, HYBRID, without_timing

TERMS = [config for config in CONTRASTIVE.values() if config is not NTXentConfig]
OWNING = [config for config in GENERATIVE.values() if not config.exact]

KILLED_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
import numpy as np
from components.model.build import load_weights
from components.training.loop import PretrainData, pretrain
from tests.components.training.small_runs import AUGMENTATION, CONFIG, HYBRID

replace, saves = Path.replace, []

def replace_or_die(path, target):
    saves.append(target)
    if len(saves) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)

Path.replace = replace_or_die
folder = Path(sys.argv[1])
model, _ = load_weights(folder / "start.safetensors")
images, labels = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
data = PretrainData(images, (images, labels), (images[:40], labels[:40]))
pretrain(model, data, HYBRID, CONFIG, AUGMENTATION, 0, folder / "resume.pt", "key", lambda step, metrics: None)
"""


def small(config: type) -> Any:
    """A term's default settings, or others with which so few images and steps show all that it does."""
    few = {
        MoCoConfig: {"queue_size": 64},
        LocalAggregationConfig: {"clusters": 6, "clusterings": 2, "background_neighbours": 20, "instance_epochs": 1},
    }
    return config(**few.get(config, {}))


def assert_equal_weights(one: GCRL, other: GCRL) -> None:
    for (name, ours), theirs in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize(
    ("variant", "settings"),
    [
        (HYBRID, {}),
        (HYBRID, {"precision": "bfloat16"}),
        (HYBRID, {"optimizer": "adamw"}),
        (HYBRID, {"micro_batch_size": 4, "views": 3}),
        (HYBRID, {"ema_decay": 0.9, "keep": "best_knn"}),
        (VariantConfig(1, 1, generative=AutoregressiveConfig(scored_ratio=0.3)), {}),
        (VariantConfig(1, 0), {}),
        (VariantConfig(1, 1, generative=PixelCNNConfig()), {}),
        (VariantConfig(1, 1, generative=PermutedConfig()), {}),
        (VariantConfig(0, 1), {}),
        (VariantConfig(0, 1, contrastive=InstDiscConfig(negatives=40)), {}),
        (VariantConfig(0, 1, contrastive=PIRLConfig(negatives=40)), {}),
        *((VariantConfig(0, 1, contrastive=small(config)), {"micro_batch_size": 8}) for config in TERMS),
        *((VariantConfig(1, 0, generative=config()), {"micro_batch_size": 8}) for config in OWNING),
    ],
    ids=[
        *["muon", "muon in bfloat16", "adamw", "micro-batches", "average", "some patches", "generative"],
        *["convolutions", "permuted", "contrastive", "instdisc, estimated", "pirl, sampled"],
        *(config.name for config in (*TERMS, *OWNING)),
    ],
)
def test_a_resumed_run_ends_bit_for_bit_where_the_uninterrupted_one_ends(fresh, train, tmp_path, variant, settings):
    """From the files after step 3 (in the first epoch) and after step 7 (in the second)."""
    place = tmp_path / "resume.pt"

    def interrupt(step: int, metrics: dict[str, float]) -> None:
        if step in (4, 8):  # the file of the step before; its own is not written yet
            shutil.copy(place, tmp_path / f"after-{step - 1}.pt")
        if step == 8:
            raise KeyboardInterrupt

    whole = fresh(variant)
    history = train(whole, variant, **settings)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(variant), variant, resume=place, on_metrics=interrupt, **settings)
    for done in (3, 7):
        kept, seen = tmp_path / f"after-{done}.pt", []
        assert saved_step(kept) == done
        resumed = fresh(variant, seed=1)  # all of it comes from the file
        again = train(
            resumed, variant, resume=kept, on_metrics=lambda step, _, seen=seen: seen.append(step), **settings
        )
        assert_equal_weights(whole, resumed)
        assert without_timing(again) == without_timing(history)
        assert seen == [row["step"] for row in history] == [2, 3, 4, 6, 8, 9, 10, 12]


def test_a_killed_process_is_resumed_bit_for_bit(fresh, train, data, tmp_path):
    architecture = Architecture(ModelConfig(2, 16, 2, 1, 1, 8, 16, 8), 8, 1, 8, True, True, True, False, 0)
    save_weights(tmp_path / "start.safetensors", fresh(), architecture)
    np.save(tmp_path / "images.npy", data.images)
    np.save(tmp_path / "labels.npy", data.bank[1])
    path = {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", KILLED_WHILE_SAVING, tmp_path]
    done = subprocess.run(command, env={**os.environ, **path}, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert torch.load(tmp_path / "resume.pt")["step"] == 5

    resumed, whole = fresh(seed=1), fresh()
    assert without_timing(train(resumed, resume=tmp_path / "resume.pt")) == without_timing(train(whole))
    assert_equal_weights(resumed, whole)


def test_the_resume_file_of_another_run_is_refused(fresh, train, data, tmp_path):
    place = tmp_path / "resume.pt"
    train(fresh(), resume=place)
    with pytest.raises(UserError, match="resume file of another run"):
        pretrain(fresh(), data, HYBRID, CONFIG, AUGMENTATION, 0, place, "other key", lambda step, metrics: None)
