"""Networks in oneDNN's blocked layout have torch's bits; where they might not, torch computes them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedexp.data.examples import Spec
from fedexp.models.cnn import Cnn
from fedexp.models.lenet5 import Lenet5
from fedexp.training import blocked
from fedexp.training.blocked import forward_of
from fedexp.training.device import limited_threads

pytestmark = pytest.mark.skipif(
    not blocked._has_blocks(), reason="the blocked layout is for x86-64 with oneDNN"
)

DIGITS = tuple("0123456789")


@pytest.fixture(autouse=True, params=[1, 2], ids=["1 thread", "2 threads"])
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    with limited_threads(request.param):
        yield


def _net(*layers: nn.Module, size: tuple[int, ...] = (3, 19, 17)) -> tuple[nn.Sequential, Spec]:
    with torch.no_grad():
        features = nn.Sequential(*layers, nn.Flatten())(torch.zeros(2, *size)).shape[1]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 10)), Spec(size, DIGITS, 0, 0)


def _networks() -> dict[str, tuple[nn.Module, Spec]]:
    torch.manual_seed(0)
    grey, coloured = Spec((1, 28, 28), DIGITS, 0, 0), Spec((3, 32, 32), DIGITS, 0, 0)
    pages = {"cnn": Cnn(), "no padding": Cnn(padding=0), "lenet5": Lenet5()}
    found = {
        f"{name}, {spec.shape[0]} channels": (page.build(spec), spec)
        for name, page in pages.items()
        for spec in (grey, coloured)
    }
    conv, pool, relu = nn.Conv2d, nn.MaxPool2d, nn.ReLU
    return found | {
        "relu first": _net(conv(3, 8, 5), relu(), pool(2), conv(8, 16, 3), relu(), pool(2)),
        "no bias": _net(conv(3, 16, 3, bias=False), pool(2), relu()),
        "strides": _net(conv(3, 7, 3, stride=2, padding=1), relu(), conv(7, 16, 3), relu()),
        "pool of 3": _net(conv(3, 16, 2), pool(3), relu(), conv(16, 20, (2, 3)), relu()),
        "ends in numbers below zero": _net(conv(3, 16, 3), pool((2, 1))),
        "then dropout of none": _net(conv(3, 16, 3), relu(), nn.Dropout(0.0), conv(16, 8, 3)),
    }


NETWORKS = _networks()


def _images(spec: Spec, count: int) -> Tensor:
    """Return images with much that is black and grey levels of which many are equal, as digits have."""
    drawn = torch.randn(count, *spec.shape, generator=torch.Generator().manual_seed(count))
    return (drawn.clamp(min=0) * 4).round() / 4


def _slopes(
    forward: blocked.Forward, module: nn.Module, x: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    outputs = forward(x)
    loss = F.cross_entropy(outputs, torch.arange(len(x)) % 10)
    return outputs.detach(), torch.autograd.grad(loss, list(module.parameters()))


@pytest.mark.parametrize("count", [2, 10, 40])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients_have_torchs_bits(name: str, count: int) -> None:
    module, spec = NETWORKS[name]
    forward, x = forward_of(module), _images(spec, count)
    assert isinstance(forward, blocked._Blocked)
    assert forward._fits(x)
    ours, theirs = _slopes(forward, module, x), _slopes(module, module, x)
    assert torch.equal(ours[0], theirs[0])
    for mine, other in zip(ours[1], theirs[1], strict=True):
        assert torch.equal(mine, other)
        assert mine.stride() == other.stride()
    with torch.inference_mode():
        assert torch.equal(forward(x), ours[0])


def test_part_of_the_parameters_may_move() -> None:
    module, spec = NETWORKS["cnn, 1 channels"]
    parameters = list(module.parameters())
    found = []
    for forward in (forward_of(module), module):
        loss = forward(_images(spec, 10)).square().sum()
        found.append(torch.autograd.grad(loss, parameters[1:3]))
    for mine, theirs in zip(*found, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    "number", [float("nan"), float("inf"), 1e30], ids=["nan", "inf", "too large"]
)
@pytest.mark.parametrize("place", ["input", "weight", "bias"])
def test_numbers_that_may_become_none_go_torchs_way(place: str, number: float) -> None:
    """oneDNN's pooling passes over NaN: a run that diverged would go on."""
    module, spec = _net(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3), nn.MaxPool2d(2))
    x, forward = _images(spec, 4), forward_of(module)
    first = module[0]
    assert isinstance(first, nn.Conv2d)
    assert first.bias is not None
    target = {"input": x, "weight": first.weight, "bias": first.bias}[place]
    with torch.no_grad():
        target.view(-1)[0] = number
        module[2].weight.mul_(1e12)  # type: ignore[operator]
        ours, theirs = forward(x), module(x)
    assert not theirs.isfinite().all()
    assert torch.equal(ours.nan_to_num(), theirs.nan_to_num())
    assert torch.equal(ours.isnan(), theirs.isnan())


def test_small_weights_behind_large_ones_hide_no_overflow() -> None:
    first, second = nn.Conv2d(1, 8, 3, bias=False), nn.Conv2d(8, 4, 3, bias=False)
    module = nn.Sequential(first, nn.MaxPool2d(2), second, nn.MaxPool2d(2), nn.ReLU())
    with torch.no_grad():
        first.weight.fill_(1e38)
        second.weight.copy_(torch.tensor([1e-4, -1e-4]).repeat(144).view(4, 8, 3, 3))
        ours, theirs = (
            forward_of(module)(torch.ones(4, 1, 10, 10)),
            module(torch.ones(4, 1, 10, 10)),
        )
    assert theirs.isnan().all()
    assert ours.isnan().all()


def test_one_image_goes_torchs_way() -> None:
    module, spec = NETWORKS["relu first"]
    forward = forward_of(module)
    assert isinstance(forward, blocked._Blocked)
    assert not forward._fits(_images(spec, 1))
    assert torch.equal(forward(_images(spec, 1)), module(_images(spec, 1)))


def test_one_pixel_images_that_torch_takes_for_channels_side_by_side_go_torchs_way() -> None:
    forward = forward_of(nn.Sequential(nn.Conv2d(7, 8, 3, padding=1), nn.ReLU()))
    odd = torch.randn(42).as_strided((6, 7, 1, 1), (7, 1, 7, 7))
    assert odd.is_contiguous()
    assert isinstance(forward, blocked._Blocked)
    assert not forward._fits(odd)


def test_who_looks_for_nan_gets_torchs_way() -> None:
    module, spec = NETWORKS["relu first"]
    with pytest.warns(UserWarning, match="Anomaly"), torch.autograd.detect_anomaly():
        ours = _slopes(forward_of(module), module, _images(spec, 3))
    assert torch.equal(ours[0], module(_images(spec, 3)))


def test_a_channel_that_torch_takes_for_channels_side_by_side_goes_torchs_way() -> None:
    module, spec = NETWORKS["cnn, 1 channels"]
    x, forward = _images(spec, 10), forward_of(module)
    odd = x.as_strided(x.shape, (784, 1, 28, 1))
    assert odd.is_contiguous()
    assert isinstance(forward, blocked._Blocked)
    assert not forward._fits(odd)
    assert torch.equal(forward(odd), module(odd))


class _Own(nn.Conv2d):
    pass


def _hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda *_: None)
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(3, 6, 3, groups=3),
        nn.Conv2d(3, 8, 3, dilation=2),
        nn.Conv2d(3, 8, 3, padding="same"),
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(3, 8, 3).double(),
        nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last),
        nn.Conv2d(1, 8, 3).to(memory_format=torch.channels_last),
        _Own(3, 8, 3),
        _hooked(nn.Conv2d(3, 8, 3)),
        nn.MaxPool2d(2, stride=1),
        nn.MaxPool2d(2, padding=1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.AvgPool2d(2),
        nn.ReLU(inplace=True),
    ],
    ids=str,
)
def test_what_was_not_tried_goes_torchs_way(layer: nn.Module) -> None:
    first = [] if isinstance(layer, nn.Conv2d) else [nn.Conv2d(3, 8, 3)]
    assert not isinstance(forward_of(nn.Sequential(*first, layer, nn.ReLU())), blocked._Blocked)


def test_a_hook_on_the_network_or_another_forward_goes_torchs_way() -> None:
    def net() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1800, 10))

    assert isinstance(forward_of(net()), blocked._Blocked)
    hooked, replaced = net(), net()
    hooked.register_forward_pre_hook(lambda *_: None)
    replaced.forward = lambda x: x  # type: ignore[method-assign]
    for module in (hooked, replaced, type("Own", (nn.Sequential,), {})(*net())):
        assert forward_of(module) is module


def test_hooks_behind_the_convolutions_are_called() -> None:
    module, spec = NETWORKS["cnn, 1 channels"]
    taken: list[Tensor] = []
    assert isinstance(module, nn.Sequential)
    handle = module[-1].register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    try:
        forward = forward_of(module)
        assert isinstance(forward, blocked._Blocked)
        forward(_images(spec, 3))
        module(_images(spec, 3))
    finally:
        handle.remove()
    assert torch.equal(*taken)
    assert taken[0].shape == (3, 512)


@pytest.mark.parametrize("page", [Cnn(), Cnn(padding=0), Lenet5()], ids=["cnn", "0", "lenet5"])
def test_relu_after_the_pooling_is_relu_before_it_to_the_bit(page: Cnn | Lenet5) -> None:
    after = page.build(Spec((1, 28, 28), DIGITS, 0, 0))
    assert isinstance(after, nn.Sequential)
    parts = list(after)
    parts[1], parts[2], parts[4], parts[5] = parts[2], parts[1], parts[5], parts[4]
    before = nn.Sequential(*parts)
    assert [type(part) for part in before[:3]] == [nn.Conv2d, nn.ReLU, nn.MaxPool2d]
    x = torch.randn(10, 1, 28, 28)
    for mine, theirs in zip(_slopes(after, after, x)[1], _slopes(before, after, x)[1], strict=True):
        assert torch.equal(mine, theirs)
