from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from fedexp.core.pooling import FEWEST, MaxPool2d
from fedexp.data.examples import Spec
from fedexp.models.base import Model
from fedexp.models.cnn import Cnn
from fedexp.models.lenet5 import Lenet5


@pytest.mark.parametrize("shape", [(10, 32, 24, 24), (2, 3, 5, 7), (7, 41, 11, 13), (1, 1, 2, 2)])
def test_pooling_gives_torchs_bits(shape: tuple[int, ...]) -> None:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0)).relu()  # many ties at 0
    drawn.flatten()[:3] = torch.tensor([float("nan"), -0.0, float("inf")])
    found = []
    for pool in (MaxPool2d(), nn.MaxPool2d(2)):
        images = drawn.clone().requires_grad_()
        pooled = pool(images)
        weights = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1))
        (slope,) = torch.autograd.grad(pooled, images, weights)
        found.append((pooled.detach().numpy().tobytes(), slope.numpy().tobytes(), pooled.stride()))
    assert found[0] == found[1]


def test_pooling_can_be_stacked() -> None:
    images = torch.randn(3, 4, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    assert images[0].numel() >= FEWEST

    def slope(pool: nn.Module, one: Tensor) -> Tensor:
        found: Tensor = grad(lambda x: (pool(x) ** 3).sum())(one)
        return found

    stacked = vmap(lambda one: slope(MaxPool2d(), one))(images)
    assert torch.equal(stacked, torch.stack([slope(nn.MaxPool2d(2), one) for one in images]))


@pytest.mark.parametrize(
    "page", [Cnn(), Cnn(padding=0), Lenet5()], ids=["cnn", "no padding", "lenet5"]
)
def test_relu_after_the_pooling_is_relu_before_it_to_the_bit(page: Model) -> None:
    after = page.build(Spec((1, 28, 28), tuple("0123456789"), 0, 0))
    assert isinstance(after, nn.Sequential)
    parts = list(after)
    parts[1], parts[2], parts[4], parts[5] = parts[2], parts[1], parts[5], parts[4]
    before = nn.Sequential(*parts)
    assert [type(part) for part in before[:3]] == [nn.Conv2d, nn.ReLU, MaxPool2d]
    x, y = torch.randn(10, 1, 28, 28), torch.arange(10)

    def slopes(network: nn.Module) -> tuple[Tensor, ...]:
        loss = nn.functional.cross_entropy(network(x), y)
        return torch.autograd.grad(loss, list(after.parameters()))

    for mine, theirs in zip(slopes(after), slopes(before), strict=True):
        assert torch.equal(mine, theirs)
