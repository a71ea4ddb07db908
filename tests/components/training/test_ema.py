import torch
from torch import nn

from components.training.ema import update_ema


def test_it_follows_the_recursion_with_a_decay_that_grows():
    model, average = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.zeros_(average.weight)
    expected = 0.0
    for step in range(1, 200):
        nn.init.constant_(model.weight, step)
        update_ema(average, model, 0.9, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(average.weight.item(), expected, rtol=1e-5, atol=0)


def test_little_is_left_of_the_first_weights_of_a_short_run():
    model, average = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.ones_(average.weight)
    nn.init.zeros_(model.weight)
    for step in range(1, 101):
        update_ema(average, model, 0.999, step)
    assert average.weight.item() < 1e-6  # 0.9 with a constant decay


def test_buffers_are_the_models():
    model, average = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    model(torch.randn(8, 2))
    update_ema(average, model, 0.9, 1)
    assert torch.equal(average.running_mean, model.running_mean)
    assert average.num_batches_tracked == 1
