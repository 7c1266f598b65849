"""Time networks of convolutions in oneDNN's blocked layout and in torch's usual one, in turns.

    python scripts/convolutions.py

Milliseconds on one thread, medians; a step is forward and backward, a test forward alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from fedexp.core.garbage import keep_for_next_step
from fedexp.data.examples import Spec
from fedexp.models.base import Model
from fedexp.models.cnn import Cnn
from fedexp.models.lenet5 import Lenet5
from fedexp.training.blocked import Forward, forward_of

GREY, COLOURED = (1, 28, 28), (3, 32, 32)
CASES: list[tuple[Model, tuple[int, ...], int]] = [
    (Cnn(), GREY, 10),
    (Cnn(), GREY, 50),
    (Cnn(), COLOURED, 50),
    (Lenet5(), GREY, 10),
    (Lenet5(), GREY, 50),
    (Lenet5(), COLOURED, 64),
]
TURNS = 25


def step(forward: Forward, parameters: list[Tensor], x: Tensor, y: Tensor) -> None:
    """Compute the gradients of a batch."""
    torch.autograd.grad(nn.functional.cross_entropy(forward(x), y), parameters)


def test(forward: Forward, parameters: list[Tensor], x: Tensor, y: Tensor) -> None:
    """Compute the outputs of a batch."""
    with torch.inference_mode():
        forward(x)


def seconds(work: Callable[..., None], *args: Any, times: int = 5) -> float:
    """Return how long it takes to do something."""
    start = time.perf_counter()
    for _ in range(times):
        work(*args)
    return (time.perf_counter() - start) / times


def main() -> None:
    """Time every case and print the table."""
    torch.set_num_threads(1)
    keep_for_next_step()
    table = Table("model", "inputs", "batch", "work", "torch", "blocks", "ratio")
    for page, shape, count in CASES:
        module = page.build(Spec(shape, tuple("0123456789"), 0, 0))
        forwards: dict[str, Forward] = {"torch": module, "blocks": forward_of(module)}
        assert forwards["blocks"] is not module, (
            "no blocked layout on this machine: it needs x86-64"
        )
        parameters: list[Tensor] = list(module.parameters())
        x, y = torch.randn(count, *shape), torch.arange(count) % 10
        for work in (step, test):
            taken: dict[str, list[float]] = {name: [] for name in forwards}
            for _ in range(TURNS):
                for name, forward in forwards.items():
                    taken[name].append(seconds(work, forward, parameters, x, y))
            theirs, ours = (1e3 * statistics.median(taken[name]) for name in forwards)
            row = f"{theirs:.2f}", f"{ours:.2f}", f"{ours / theirs:.2f}"
            table.add_row(page.name, "x".join(map(str, shape)), str(count), work.__name__, *row)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
