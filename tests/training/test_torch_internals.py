"""What fedexp needs of torch beside its public interface: the same bits as the public way."""

from __future__ import annotations

import importlib.metadata

import pytest
import torch

from fedexp.training.torch_internals import fused_sgd, gradient_function


def test_torch_is_the_version_that_the_corners_were_tried_with() -> None:
    assert importlib.metadata.version("torch").startswith("2.14.")


def test_gradients_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    used, unused = torch.randn(3, 4, requires_grad=True), torch.randn(2, requires_grad=True)

    def loss() -> torch.Tensor:
        return (used.sin() * used).sum()

    (mine, none) = gradient_function([used, unused], torch.device("cpu"))(loss())
    (theirs,) = torch.autograd.grad(loss(), [used])
    assert mine is not None
    assert torch.equal(mine, theirs)
    assert none is None
    assert used.grad is None  # nothing is accumulated


def test_every_gradient_lies_in_memory_as_its_parameter_does() -> None:
    # The fused optimizers read memory, not strides: a sum's gradient is one number shown many times.
    torch.manual_seed(0)
    summed, turned = torch.randn(40, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    last = torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last)
    kernel = torch.randn(4, 3, 3, 3, requires_grad=True)
    parameters = [summed, turned, kernel]

    def loss() -> torch.Tensor:
        mixed = torch.einsum("bihw,oi->bohw", last, turned)
        return (mixed.mean() + torch.conv2d(last, kernel).mean()) * summed.sum()

    theirs = torch.autograd.grad(loss(), parameters)
    assert all(g.stride() != p.stride() for g, p in zip(theirs, parameters, strict=True))
    mine = gradient_function(parameters, torch.device("cpu"))(loss())
    for found, wanted, parameter in zip(mine, theirs, parameters, strict=True):
        assert found is not None
        assert torch.equal(found, wanted)
        assert found.stride() == parameter.stride()


def test_no_two_parameters_share_a_gradient() -> None:
    # Gradients are clipped and corrected in place.
    one, other = torch.ones(4, requires_grad=True), torch.ones(4, requires_grad=True)
    square = torch.ones(2, 2, requires_grad=True)
    loss = (one + other + square.view(4)).square().sum()
    mine = gradient_function([one, other, square], torch.device("cpu"))(loss)
    assert [g.flatten().tolist() for g in mine if g is not None] == [[6.0] * 4] * 3
    assert len({g.data_ptr() for g in mine if g is not None}) == 3


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_is_that_of_torchs_sgd(momentum: float) -> None:
    torch.manual_seed(0)
    start = [torch.randn(3, 4), torch.randn(4)]
    mine = [p.clone() for p in start]
    theirs = [p.clone().requires_grad_() for p in start]
    optimizer = torch.optim.SGD(theirs, 0.1, momentum, weight_decay=0.01, fused=True)
    momenta = [torch.empty_like(p) for p in mine] if momentum else []
    for step in range(3):
        gradients = [torch.randn_like(p) for p in start]
        fused_sgd(
            mine,
            gradients,
            momenta,
            weight_decay=0.01,
            momentum=momentum,
            learning_rate=0.1,
            first=step == 0,
        )
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
