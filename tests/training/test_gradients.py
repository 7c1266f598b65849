"""What is written out has autograd's bits, and what cannot be written out is left to autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedexp.training.device import limited_threads
from fedexp.training.gradients import Differentiate, by_autograd, chain_of, differentiation

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with limited_threads(1):
        yield


def _chain(*widths: int, first: bool = False) -> nn.Sequential:
    """Return layers of these widths with ReLU between them, and before them, too, where it is asked."""
    torch.manual_seed(len(widths))
    layers: list[nn.Module] = [nn.Flatten(), nn.ReLU()] if first else [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.fixture(autouse=True)
def as_steps_are_taken() -> Iterator[None]:
    with torch.no_grad():
        yield


def _both(module: nn.Module) -> tuple[Differentiate, Differentiate]:
    moving = list(module.parameters())
    assert chain_of(module, moving) is not None
    theirs = by_autograd(lambda x, y: F.cross_entropy(module(x), y), moving, nullcontext(), CPU)
    return differentiation(module, moving, F.cross_entropy, nullcontext(), CPU), theirs


@pytest.mark.parametrize("count", [1, 2, 3, 10, 32, 64, 257])
@pytest.mark.parametrize(
    "module",
    [
        _chain(784, 10),
        _chain(784, 128, 10),
        _chain(784, 200, 200, 62),
        _chain(1, 5, 3),
        _chain(784, 16, 7, first=True),
        _chain(784, 16, 7, 5).append(nn.ReLU()),
    ],
    ids=["one layer", "two", "three", "one number", "relu first", "relu last"],
)
def test_steps_along_written_out_gradients_have_autograds_bits(
    module: nn.Sequential, count: int
) -> None:
    mine, theirs = _both(module)
    for turn in range(3):
        torch.manual_seed(turn)
        x = torch.randn(count, next(module.parameters()).shape[1], 1)
        y = torch.randint(0, module(x).shape[1], (count,))
        (loss, gradients), (expected, wanted) = mine(x, y), theirs(x, y)
        assert torch.equal(loss, expected)
        assert not loss.requires_grad
        for parameter, found, right in zip(module.parameters(), gradients, wanted, strict=True):
            assert found is not None
            assert right is not None
            assert torch.equal(found, right)
            assert found.stride() == parameter.stride()
            parameter.data.sub_(found, alpha=0.1)


def test_gradients_of_a_loss_without_bounds_are_autograds() -> None:
    mine, theirs = _both(module := _chain(784, 16, 4))
    next(module.parameters()).data.mul_(1e38)
    x, y = 100 * torch.randn(5, 784), torch.tensor([0, 1, 2, 3, 0])
    (loss, gradients), (expected, wanted) = mine(x, y), theirs(x, y)
    torch.testing.assert_close(loss, expected, rtol=0, atol=0, equal_nan=True)
    assert not loss.isfinite()
    for found, right in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(found, right, rtol=0, atol=0, equal_nan=True)


def test_a_label_that_the_model_has_not_is_an_error() -> None:
    mine, theirs = _both(_chain(784, 16, 4))
    for differentiate in (theirs, mine):
        with pytest.raises(IndexError):
            differentiate(torch.randn(2, 784), torch.tensor([0, 4]))


class _Own(nn.Linear):
    """A layer that may do something else."""


def _changed(change: Callable[[nn.Sequential], object]) -> Callable[[], nn.Module]:
    def module() -> nn.Module:
        network = _chain(784, 8, 8)
        change(network)
        return network

    return module


def _linear(network: nn.Sequential, place: int = 1) -> nn.Linear:
    layer = network[place]
    assert isinstance(layer, nn.Linear)
    return layer


def _replace_forward(network: nn.Sequential) -> None:
    network[3].forward = lambda x: F.linear(x, 3 * _linear(network, 3).weight)


def _tie(network: nn.Sequential) -> None:
    network.append(nn.Linear(8, 8))
    _linear(network, 4).weight = _linear(network, 3).weight


def _turn(network: nn.Sequential) -> None:
    layer = _linear(network)
    layer.weight = nn.Parameter(layer.weight.detach().t().contiguous().t())


def _spread(network: nn.Sequential) -> None:
    _linear(network).bias = nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize(
    "module",
    [
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.Dropout(0.5), nn.Linear(8, 4)),
        lambda: nn.Sequential(nn.Flatten(), _Own(784, 4)),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 4, bias=False)),
        lambda: nn.Sequential(nn.Flatten(2), nn.Linear(784, 4)),
        lambda: nn.Sequential(nn.Linear(784, 4)),
        lambda: nn.Sequential(nn.Flatten()),
        lambda: nn.Sequential(),
        lambda: _chain(784, 8, 4).double(),
        lambda: _chain(784, 1, 62),  # of a batch of one, autograd adds in another order
        _changed(lambda network: network[2].register_forward_hook(lambda *_: None)),
        _changed(lambda network: _linear(network).weight.register_hook(lambda slope: 2 * slope)),
        _changed(lambda network: nn.utils.parametrizations.weight_norm(network[1])),
        _changed(lambda network: network[1].requires_grad_(False)),
        _changed(lambda network: network.compile()),
        _changed(_replace_forward),
        _changed(_tie),
        _changed(_turn),
        _changed(_spread),
    ],
)
def test_other_networks_are_left_to_autograd(module: Callable[[], nn.Module]) -> None:
    network = module()
    assert chain_of(network, [p for p in network.parameters() if p.requires_grad]) is None


def test_where_some_parameters_stay_autograd_finds_the_others_gradients() -> None:
    module = _chain(784, 8, 4)
    head = list(module[3].parameters())
    found = differentiation(module, head, F.cross_entropy, nullcontext(), CPU)
    _, gradients = found(torch.randn(3, 784), torch.tensor([0, 1, 2]))
    assert [g.shape for g in gradients if g is not None] == [(4, 8), (4,)]


def test_another_loss_is_left_to_autograd() -> None:
    module = _chain(784, 8, 4)
    moving = list(module.parameters())

    def twice(outputs: Tensor, targets: Tensor) -> Tensor:
        return 2 * F.cross_entropy(outputs, targets)

    x, y = torch.randn(3, 784), torch.tensor([0, 1, 2])
    once, _ = differentiation(module, moving, F.cross_entropy, nullcontext(), CPU)(x, y)
    doubled, _ = differentiation(module, moving, twice, nullcontext(), CPU)(x, y)
    assert float(doubled) == 2 * float(once)


def test_hooks_of_all_modules_are_called() -> None:
    module, seen = _chain(784, 8, 4), list[nn.Module]()
    hook = nn.modules.module.register_module_forward_hook(lambda part, *_: seen.append(part))
    try:
        assert chain_of(module, list(module.parameters())) is None
    finally:
        hook.remove()


def test_targets_may_be_probabilities() -> None:
    module = _chain(784, 8, 4)
    moving = list(module.parameters())
    x, y = torch.randn(3, 784), torch.rand(3, 4).softmax(1)
    found, _ = differentiation(module, moving, F.cross_entropy, nullcontext(), CPU)(x, y)
    assert torch.equal(found, F.cross_entropy(module(x), y).detach())


def test_gradients_are_those_at_the_weights_of_the_moment() -> None:
    module = _chain(784, 8, 4)
    mine, theirs = _both(module)
    for parameter in module.parameters():
        parameter.data = parameter.data + 0.5  # other memory
    x, y = torch.randn(3, 784), torch.tensor([0, 1, 2])
    for found, right in zip(mine(x, y)[1], theirs(x, y)[1], strict=True):
        assert found is not None
        assert right is not None
        assert torch.equal(found, right)
