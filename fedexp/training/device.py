"""What a process may compute on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fedexp.config.backend import BackendConfig
from fedexp.core.options import AUTO


def pick_device(backend: BackendConfig) -> torch.device:
    """Choose the device: ``auto`` is the GPU where there is one for the taking, else the CPU."""
    if backend.device != AUTO:
        return torch.device(backend.device)
    return torch.device("cuda" if backend.reserves_gpu and torch.cuda.is_available() else "cpu")


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Run a block with a fixed number of torch threads; results depend on it in the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
