"""What a process may compute on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fedexp.config.backend import BackendConfig
from fedexp.core.machine import compute_portably
from fedexp.core.options import AUTO


def pick_device(backend: BackendConfig) -> torch.device:
    """Choose the device: ``auto`` is the GPU where there is one for the taking, else the CPU.

    A process that computes on a GPU repeats its results to the bit from then on: see :func:`repeatable`.
    One that is to compute portably does so from then on.
    """
    if backend.portable:
        compute_portably()
    name = backend.device
    if name == AUTO:
        name = "cuda" if backend.reserves_gpu and torch.cuda.is_available() else "cpu"
    if name == "cuda":
        repeatable()
    return torch.device(name)


def repeatable() -> None:
    """Have a GPU use algorithms that give the same bits every time, in all of this process.

    Left alone, cuDNN adds up a convolution's gradients in any order, and the same seed gives another
    model every time. cuBLAS does so only where several streams share a handle, and here is one.
    """
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Run a block with a fixed number of torch threads; results depend on it in the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
