from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from components.errors import ConfigError
from components.objectives.base import Batch, TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.contrastive.loco import LoCoConfig
from components.objectives.contrastive.loco.term import LoCo, local_features
from components.objectives.contrastive.nt_xent.term import nt_xent
from components.objectives.objective import build_objective

DATA = TrainingSet(torch.zeros(4, 4, 4, 1, dtype=torch.uint8).numpy())
LAYERS = 4


@pytest.fixture
def model(make_model):
    return make_model(2, 4, 5, w_gen=0, encoder_layers=LAYERS)


@pytest.fixture
def tokens() -> Tensor:
    """Two views of five images."""
    return torch.randint(5, (10, 4, 4), generator=torch.Generator().manual_seed(0))


def reached(model, value: Tensor) -> set[str]:
    """The parts of the model that a gradient of this value reaches: numbers of blocks, `embedding`, `norm`."""
    model.zero_grad(set_to_none=True)
    value.sum().backward(retain_graph=True)
    names = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    blocks = {name.split(".")[2] for name in names if name.startswith("encoder.")}
    return (
        blocks
        | ({"embedding"} if names & {"start", "position", "embedding.weight", "patch.weight"} else set())
        | ({"norm"} if "norm.weight" in names else set())
    )


def batch_of(term: LoCo, model, tokens: Tensor) -> Batch:
    represented = term.represent(model, tokens).unflatten(0, (2, 5))
    projections = model.project(term.pooled(represented).flatten(0, 1)).unflatten(0, (2, 5))
    return Batch(represented, projections, torch.arange(5), torch.Generator())


def weighted(features: Tensor) -> Tensor:
    """Features times fixed numbers: their plain sum is constant, for they are normalised."""
    return features * torch.randn(features.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        (0, [{"embedding", "0"}, {"1"}, {"2"}, {"3", "norm"}]),
        (1, [{"embedding", "0", "1"}, {"1", "2"}, {"2", "3", "norm"}]),
        (2, [{"embedding", "0", "1", "2"}, {"1", "2", "3", "norm"}]),
        (3, [{"embedding", "0", "1", "2", "3", "norm"}]),
    ],
)
def test_gradients_stop_where_a_unit_begins(model, tokens, overlap, expected):
    ends = weighted(local_features(model, tokens, overlap))
    assert [reached(model, end) for end in ends.unbind(1)] == expected


@pytest.mark.parametrize("overlap", range(LAYERS))
def test_values_are_the_encoders_whatever_the_overlap(model, tokens, overlap):
    ends, x, expected = local_features(model, tokens, overlap), model.embed(tokens), []
    for number, block in enumerate(model.encoder.blocks):
        x = block(x)
        if overlap <= number < LAYERS - 1:
            expected.append(F.layer_norm(x, x.shape[-1:]).mean(1))
    expected.append(model.pool(model.encode(tokens)))
    torch.testing.assert_close(ends, torch.stack(expected, 1))


def test_a_units_gradient_is_that_of_its_blocks_alone(model, tokens):
    """Against a loop that detaches and keeps everything: nothing is lost by computing a unit again."""
    end = weighted(local_features(model, tokens, 1))[:, 1]
    found = torch.autograd.grad(end.sum(), list(model.encoder.blocks[1:3].parameters()))
    x = model.encoder.blocks[0](model.embed(tokens)).detach()
    x = model.encoder.blocks[2](model.encoder.blocks[1](x))
    pooled = torch.stack([F.layer_norm(x, x.shape[-1:]).mean(1)] * 3, 1)
    expected = torch.autograd.grad(weighted(pooled)[:, 1].sum(), list(model.encoder.blocks[1:3].parameters()))
    torch.testing.assert_close(found, expected)


def test_the_loss_is_the_mean_over_the_units(model, tokens):
    term = LoCo(LoCoConfig(overlap=1, temperature=0.3), model, DATA)
    batch = batch_of(term, model, tokens)
    loss, metrics = term(batch)
    heads = [*term.heads, model.projection]
    assert len(heads) == 3
    losses = [
        nt_xent(F.normalize(head(batch.features[:, :, unit].flatten(0, 1)), dim=1), 0.3)
        for unit, head in enumerate(heads[:2])
    ]
    losses.append(nt_xent(batch.projections.flatten(0, 1), 0.3))
    torch.testing.assert_close(loss, torch.stack(losses).mean(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(metrics["first_unit_loss"], losses[0].detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(metrics["last_unit_loss"], losses[-1].detach())
    weights = [next(head.parameters()) for head in heads]
    assert all(not torch.equal(a, b) for a in weights for b in weights if a is not b)


def test_one_unit_of_all_blocks_is_nt_xent(model, tokens):
    term = LoCo(LoCoConfig(overlap=LAYERS - 1), model, DATA)
    assert len(term.heads) == 0
    loss, _ = term(batch_of(term, model, tokens))
    expected = nt_xent(model.project(model.pool(model.encode(tokens))), 0.2)
    torch.testing.assert_close(loss, expected)
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    torch.testing.assert_close(found, torch.autograd.grad(expected, parameters, allow_unused=True))


def test_a_pass_holds_the_activations_of_no_block(model, tokens):
    """Only what the units begin with: they are computed again where the backward pass needs more."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def kept(function: Callable[[], Tensor]) -> int:
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            held = function()
        assert held.requires_grad
        return sum(size for place, size in storages.items() if place not in weights)

    assert kept(lambda: local_features(model, tokens, 1)) < kept(lambda: model.pool(model.encode(tokens))) / 5


def test_what_makes_no_sense_is_refused(model):
    with pytest.raises(ConfigError, match=r"contrastive\.overlap: 4, but the encoder has 4 blocks: units can share 3"):
        build_objective(VariantConfig(0, 1, contrastive=LoCoConfig(overlap=4)), model, DATA, 0)
    with pytest.raises(ValueError, match="set w_gen to 0"):
        VariantConfig(1, 1, contrastive=LoCoConfig())
    VariantConfig(1, 0, contrastive=LoCoConfig())
