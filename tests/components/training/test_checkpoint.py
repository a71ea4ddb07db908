import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from components.errors import UserError
from components.training.checkpoint import load_resume, save_resume
from components.training.config import TrainingConfig
from components.training.optimizer import build_optimizers

HISTORY = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "extra": 1.0}]

FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from torch import nn
from components.errors import UserError
from components.model.build import Architecture, build, save_weights
from components.model.config import ModelConfig
from components.objectives.config import VariantConfig
from components.training.checkpoint import save_resume

palette = np.arange(0, 256, 16, dtype=np.uint8)[:, None]
architecture = Architecture.of(ModelConfig(2, width=64), VariantConfig(1, 1), 8, palette)
model = build(architecture, palette, 0)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
folder = Path(sys.argv[1])
for save in (
    lambda: save_resume(folder / "resume.pt", "key", 1, model, [], []),
    lambda: save_weights(folder / "model.safetensors", model, architecture),
):
    try:
        save()
    except UserError as error:
        print(error)
"""


def make(name: str = "muon", seed: int = 0):
    torch.manual_seed(seed)
    model = nn.ModuleDict({"embedding": nn.Embedding(3, 4), "stack": nn.ModuleDict({"blocks": nn.Linear(4, 4)})})
    return model, build_optimizers(model, TrainingConfig(10, 4, 0.5, optimizer=name, warmup_steps=0))


def step(model, optimizers) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()
    model["stack"]["blocks"](model["embedding"](torch.tensor([0, 1, 2]))).square().sum().backward()
    for optimizer in optimizers:
        optimizer.step()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model, optimizers = make()
    step(model, optimizers)
    save_resume(tmp_path / "resume.pt", "key", 2, model, optimizers, HISTORY)
    return tmp_path / "resume.pt"


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_training_goes_on_from_the_file_as_if_nothing_had_happened(tmp_path, name):
    model, optimizers = make(name)
    for _ in range(3):
        step(model, optimizers)
    save_resume(tmp_path / "resume.pt", "key", 3, model, optimizers, HISTORY)
    resumed, restored = make(name, seed=1)
    assert load_resume(tmp_path / "resume.pt", "key", resumed, restored) == (3, HISTORY)
    for _ in range(3):
        step(model, optimizers)
        step(resumed, restored)
    for ours, theirs in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_no_file_means_the_beginning(tmp_path):
    assert load_resume(tmp_path / "resume.pt", "key", *make()) == (0, [])


def test_the_file_of_another_run(saved):
    with pytest.raises(UserError, match=r"resume\.pt: resume file of another run \(key key, expected other\)\. Delete"):
        load_resume(saved, "other", *make())


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_a_truncated_file(saved, keep):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match=r"resume\.pt: not a usable resume file .*Delete .* to start over"):
        load_resume(saved, "key", *make())


def test_a_file_that_is_no_resume_file(saved):
    for content in ([1, 2], 5, {"key": "key"}, {"key": "key", "model": 3, "optimizers": [], "step": 1, "history": []}):
        torch.save(content, saved)
        with pytest.raises(UserError, match="not a usable resume file"):
            load_resume(saved, "key", *make())
    saved.write_text("hello")
    with pytest.raises(UserError, match="not a usable resume file"):
        load_resume(saved, "key", *make())


def test_the_file_of_another_optimizer_or_model(saved):
    for model, optimizers in (make("adamw"), (nn.Linear(2, 2), [])):
        with pytest.raises(UserError, match="not a usable resume file"):
            load_resume(saved, "key", model, optimizers)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    # without PYTHONDONTWRITEBYTECODE the limit would also cut .pyc files short
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", FULL_DISK, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    for name in ("resume.pt", "model.safetensors"):
        assert f"{name}: could not be written, the disk is full" in done.stdout
    assert list(tmp_path.iterdir()) == []
