"""Several processes that share a batch find what one alone finds. They are real ones, over gloo."""

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

from components.errors import ConfigError, UserError
from components.model.gcrl import GCRL
from components.objectives.config import VariantConfig
from components.objectives.registry import CONTRASTIVE, GENERATIVE
from components.training.checkpoint import History
from components.training.distributed import Ranks
from components.training.launch import launch
from components.training.loop import Trained, pretrain
from components.training.validation import PretrainData

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # so that the processes, too, find what they are to do
import ranks_work as work  # noqa: E402


@pytest.fixture(scope="module")
def by_channels(stripes, coloured_stripes) -> dict[int, PretrainData]:
    """Grey images under 1, coloured ones under 3."""
    return {
        images.shape[3]: PretrainData(images, (images, labels), (images[:40], labels[:40]), labels)
        for images, labels in (stripes, coloured_stripes)
    }


@pytest.fixture(scope="module")
def data(by_channels) -> PretrainData:
    return by_channels[1]


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(2, 8, 8, encoder_layers=2, decoder_layers=1)


@pytest.fixture(scope="module")
def models(make_model) -> dict[str, bytes]:
    """A model for each case, pickled: what a term trains may have another shape."""

    def make(variant: VariantConfig) -> GCRL:
        channels = 3 if variant.contrastive.name == "cmc" else 1
        return make_model(2, 8, 8, channels, generative=variant.generative, encoder_layers=2, decoder_layers=1)

    return {name: pickle.dumps(make(variant)) for name, (variant, _, _) in work.CASES.items()}


@pytest.fixture(scope="module")
def found(models, by_channels, tmp_path_factory) -> Path:
    """A folder with what each of two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    launch(work.find, (models, by_channels, folder), work.config(processes=2), lambda step, metrics: None)
    return folder


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name in found:
        # CPC's images hold equal patches, and rounding decides which of them is the likeliest
        atol = 0.01 if name == "prediction_accuracy" else 1e-4
        torch.testing.assert_close(found[name], expected[name], atol=atol, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_every_term_is_among_the_cases():
    variants = work.SEVERAL.values()
    assert {v.contrastive.name for v in variants if v.w_con} == {kind.name for kind in CONTRASTIVE.values()}
    assert {v.generative.name for v in variants if v.w_gen} == {kind.name for kind in GENERATIVE.values()}


@pytest.mark.parametrize("case", work.CASES)
def test_two_processes_find_the_losses_and_gradients_of_one(models, by_channels, found, case):
    """Of the whole batch, all negatives and batch statistics included; and both find the same, bit for bit."""
    own, (variant, views, passes) = pickle.loads(models[case]), work.CASES[case]
    data = by_channels[own.channels]
    expected = work.step(own, work.objective_of(own, data, variant), data, Ranks(), views, passes)
    both = [torch.load(found / f"{case}-{rank}.pt") for rank in (0, 1)]
    assert_close(both[0], expected)
    for name, value in both[0].items():
        assert torch.equal(value, both[1][name]), name


@pytest.mark.trains
@pytest.mark.parametrize("case", work.SEVERAL)
def test_two_processes_end_with_the_weights_of_one(models, by_channels, found, case):
    """After several steps of plain gradient descent, which makes nothing larger than it is. AdamW does: rounding is all
    the gradient that a bias in front of the batch norm has, and becomes steps of full size."""
    model = pickle.loads(models[case])
    data = by_channels[model.channels]
    expected = work.several_steps(pickle.loads(models[case]), data, Ranks(), work.SEVERAL[case])
    both = [torch.load(found / f"weights-{case}-{rank}.pt") for rank in (0, 1)]
    moved = max((expected[name] - value).abs().max().item() for name, value in model.state_dict().items())
    assert moved > 0.01
    assert_close(both[0], expected)
    for name, value in both[0].items():
        assert torch.equal(value, both[1][name]), name


def test_both_processes_go_by_the_clock_of_the_first(found):
    assert [torch.load(found / f"clock-{rank}.pt") for rank in (0, 1)] == [0.1, 0.1]


def test_the_first_process_alone_writes_and_reports(found):
    first, second = (torch.load(found / f"written-{rank}.pt") for rank in (0, 1))
    assert first["steps"] == [1, 2]
    assert first["files"].count(("os.rename", "resume.pt")) == 2  # put in its place after each step
    assert second == {"files": [], "steps": []}


def without_timing(history: History) -> History:
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in history]


@pytest.mark.trains
def test_a_run_goes_on_in_another_number_of_processes(model, data, tmp_path):
    """Interrupted alone, resumed by two: what is logged is what one would have logged, up to rounding."""

    def train(resume: str, seen: list[int], stop: int = 99, **changes: int) -> Trained:
        def on_metrics(step: int, metrics: dict[str, float]) -> None:
            seen.append(step)
            if step == stop:
                raise KeyboardInterrupt

        own, place = pickle.loads(pickle.dumps(model)), tmp_path / resume / "resume.pt"
        config = work.config(**changes)
        return pretrain(own, data, work.HYBRID, config, work.AUGMENTATION, 0, place, "key", on_metrics)

    whole, seen = train("whole", []), []
    with pytest.raises(KeyboardInterrupt):
        train("parts", [], stop=3)
    assert torch.load(tmp_path / "parts/resume.pt")["step"] == 2
    resumed = train("parts", seen, processes=2, micro_batch_size=4)
    assert seen == [1, 2, 3, 4, 5, 6]
    assert resumed.step == 6
    for ours, theirs in zip(without_timing(resumed.history), without_timing(whole.history), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {"resume.pt"}


@pytest.mark.parametrize(("killed", "told"), [("a process", True), ("all from outside", False)])
def test_nothing_is_left_of_a_run_of_which_a_part_was_killed(data, model, tmp_path, killed, told):
    with (tmp_path / "start.pkl").open("wb") as file:
        pickle.dump((model, data), file)
    environment = os.environ | {"PYTHONPATH": f"{HERE.parents[2]}{os.pathsep}{HERE}"}
    command = [sys.executable, "-m", "ranks_work", str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "resume.pt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = [c for c in psutil.Process(process.pid).children() if "spawn_main" in " ".join(c.cmdline())]
    assert len(workers) == 2
    (workers[1] if told else process).send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    assert process.returncode == (1 if told else -signal.SIGKILL)
    if told:
        assert errors.startswith("error: training process 1 of 2 was ended by SIGKILL, and the run with it. ")
        assert errors.count("\n") == 1
    assert torch.load(tmp_path / "resume.pt")["step"] >= 1  # whole


def test_a_memory_mapped_array_goes_over_as_the_name_of_its_file(tmp_path):
    images = np.arange(60_000, dtype=np.uint8).reshape(1000, 5, 4, 3)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    whole, part = ForkingPickler.dumps(mapped), ForkingPickler.dumps(mapped[5:900])
    assert len(whole) < 1000
    assert np.array_equal(pickle.loads(whole), images)
    assert np.array_equal(pickle.loads(part), images[5:900])


def test_the_message_of_a_mistake_reaches_the_caller(model, data, tmp_path):
    """Of whichever process makes it, and without waiting for the others."""
    config = work.config(processes=2)
    with pytest.raises(ConfigError, match="the second process has a reason"):
        launch(work.refuse, (), config, lambda step, metrics: None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_told_before_any_process_starts():
    with pytest.raises(UserError, match=r"training\.device: cuda was asked for"):
        launch(work.refuse, (), replace(work.config(processes=2), device="cuda"), lambda step, metrics: None)


def test_a_share_of_the_batch():
    shares = [np.arange(12)[Ranks(rank, 3).share(12)].tolist() for rank in range(3)]
    assert shares == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
