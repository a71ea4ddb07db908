import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from components.errors import UserError
from components.training.checkpoint import Kept, State, load_resume, save_resume, saved_step
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
from components.training.checkpoint import State, save_resume

palette = np.arange(0, 256, 16, dtype=np.uint8)[:, None]
architecture = Architecture.of(ModelConfig(2, width=64), VariantConfig(1, 1), 8, palette)
model = build(architecture, palette, 0)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
folder = Path(sys.argv[1])
for save in (
    lambda: save_resume(folder / "resume.pt", "key", State(model, nn.Module(), [])),
    lambda: save_weights(folder / "model.safetensors", model, architecture),
):
    try:
        save()
    except UserError as error:
        print(error)
"""


def make(name: str = "muon", seed: int = 0, average: bool = False) -> State:
    torch.manual_seed(seed)
    model = nn.ModuleDict({"embedding": nn.Embedding(3, 4), "stack": nn.ModuleDict({"blocks": nn.Linear(4, 4)})})
    objective = nn.ModuleDict({"predictor": nn.Linear(4, 4), "normalise": nn.BatchNorm1d(4)})
    optimizers = build_optimizers(model, TrainingConfig(10, 4, 0.5, optimizer=name, warmup_steps=0), objective)
    return State(model, objective, optimizers, copy.deepcopy(model) if average else None)


def step(state: State) -> None:
    model = state.model
    for optimizer in state.optimizers:
        optimizer.zero_grad()
    features = model["stack"]["blocks"](model["embedding"](torch.tensor([0, 1, 2])))
    owned = state.objective
    (features.square().sum() + owned["normalise"](owned["predictor"](features)).square().sum()).backward()
    for optimizer in state.optimizers:
        optimizer.step()
    state.step += 1


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    state = make()
    step(state)
    save_resume(tmp_path / "resume.pt", "key", state)
    return tmp_path / "resume.pt"


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_training_goes_on_from_the_file_as_if_nothing_had_happened(tmp_path, name):
    state = make(name)
    state.history = HISTORY
    for _ in range(3):
        step(state)
    save_resume(tmp_path / "resume.pt", "key", state)
    resumed = make(name, seed=1)
    load_resume(tmp_path / "resume.pt", "key", resumed)
    assert (resumed.step, resumed.history, resumed.kept) == (3, HISTORY, None)
    for _ in range(3):
        step(state)
        step(resumed)
    for of in ("model", "objective"):  # what the terms own, too
        pairs = zip(getattr(state, of).state_dict().items(), getattr(resumed, of).state_dict().values(), strict=True)
        for (name, ours), theirs in pairs:
            assert torch.equal(ours, theirs), name


def test_the_average_and_the_kept_model_come_back(tmp_path):
    state = make(average=True)
    assert state.average is not None
    step(state)
    state.kept = Kept(1, -0.5, {"weight": torch.arange(3.0)})
    save_resume(tmp_path / "resume.pt", "key", state)
    resumed = make(seed=1, average=True)
    load_resume(tmp_path / "resume.pt", "key", resumed)
    for ours, theirs in zip(state.average.parameters(), resumed.average.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(resumed.average["embedding"].weight, resumed.model["embedding"].weight)
    assert (resumed.kept.step, resumed.kept.score) == (1, -0.5)
    assert torch.equal(resumed.kept.weights["weight"], torch.arange(3.0))


def test_no_file_means_the_beginning(tmp_path):
    state = make()
    load_resume(tmp_path / "resume.pt", "key", state)
    assert (state.step, state.history) == (0, [])
    assert saved_step(tmp_path / "resume.pt") == 0


def test_the_file_of_another_run(saved):
    with pytest.raises(UserError, match=r"resume\.pt: resume file of another run \(key key, expected other\)\. Delete"):
        load_resume(saved, "other", make())


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_a_truncated_file(saved, keep):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match=r"resume\.pt: not a usable resume file .*Delete .* to start over"):
        load_resume(saved, "key", make())
    assert saved_step(saved) == 0


def test_a_file_that_is_no_resume_file(saved):
    for content in ([1, 2], 5, {"key": "key"}, {"key": "key", "model": 3, "optimizers": [], "step": 1, "history": []}):
        torch.save(content, saved)
        with pytest.raises(UserError, match="not a usable resume file"):
            load_resume(saved, "key", make())
        assert saved_step(saved) == (1 if isinstance(content, dict) and "step" in content else 0)
    saved.write_text("hello")
    with pytest.raises(UserError, match="not a usable resume file"):
        load_resume(saved, "key", make())


def test_the_file_of_another_optimizer_or_model(saved):
    for state in (make("adamw"), State(nn.Linear(2, 2), nn.Module(), []), make(average=True)):
        with pytest.raises(UserError, match="not a usable resume file"):
            load_resume(saved, "key", state)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    # without PYTHONDONTWRITEBYTECODE the limit would also cut .pyc files short
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", FULL_DISK, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    for name in ("resume.pt", "model.safetensors"):
        assert f"{name}: could not be written, the disk is full" in done.stdout
    assert list(tmp_path.iterdir()) == []
