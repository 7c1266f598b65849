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
