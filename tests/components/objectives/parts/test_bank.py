import pytest
import torch
from torch.nn import functional as F

from components.objectives.parts.bank import MemoryBank, random_directions


def test_it_equals_a_naive_loop(unit):
    first, vectors = unit(7), 3 * unit(2, seed=1)
    bank = MemoryBank(first.clone(), 0.8)
    bank.remember(torch.tensor([5, 2]), vectors)
    bank.after_step()
    expected = first.clone()
    for image, vector in ((5, vectors[0]), (2, vectors[1])):
        mixed = 0.8 * first[image] + 0.2 * vector
        expected[image] = mixed / mixed.norm()
    torch.testing.assert_close(bank.rows, expected)


def test_a_loss_reads_the_rows_as_they_were_until_its_step_is_over(unit):
    first, images = unit(7), torch.tensor([5, 2])
    bank = MemoryBank(first.clone(), 0.8)
    z = unit(2, seed=1).requires_grad_()
    loss = (z @ bank.rows.T).logsumexp(1).sum()
    bank.remember(images, z)
    assert torch.equal(bank.rows, first)
    loss.backward()
    torch.testing.assert_close(z.grad, F.softmax(z.detach() @ first.T, 1) @ first)
    bank.after_step()
    assert not torch.equal(bank.rows[images], first[images])
    assert not bank.rows.requires_grad


def test_a_batch_is_taken_in_once(unit):
    bank = MemoryBank(unit(7), 0.5)
    bank.remember(torch.tensor([0]), unit(1, seed=1))
    bank.after_step()
    with pytest.raises(AssertionError):
        bank.after_step()


def test_random_directions_have_unit_length():
    found = random_directions(50, 6)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(50))
    assert found.mean(0).abs().max() < 0.3
