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


MOST_AT_ONCE = 64
"""Clients that are trained together where nobody said how many; more hardly fill a GPU any better."""


def clients_that_fit(free: int, per_client: int) -> int:
    """Return how many clients may be trained together.

    Half of the free memory stays free, because stacked kernels need room to work in. A power of two, so
    that a little more or less memory gives the same number.

    Args:
        free: Bytes.
        per_client: Bytes that one client takes, > 0.
    """
    fit = min(MOST_AT_ONCE, free // (2 * per_client))
    return 1 << max(0, fit.bit_length() - 1)


def gpu_left(device: torch.device, share: float) -> int:
    """Return the bytes of a GPU that this process may still take.

    Args:
        device: The GPU.
        share: Which part of it is this process's, in (0, 1]; several workers may have one together.
    """
    free, total = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device)
    allocated = torch.cuda.memory_allocated(device)
    return max(0, min(free + held - allocated, int(share * total) - allocated))


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[int]]:
    """Yield a list to which is added the most bytes of a GPU that the block took at a time."""
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    taken: list[int] = []
    yield taken
    taken.append(torch.cuda.max_memory_allocated(device) - before)
