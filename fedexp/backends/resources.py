"""Does this machine have what clients are to run on? Asked before anything is started or written."""

from __future__ import annotations

from pathlib import Path

from fedexp.config.backend import BackendConfig, DeploymentBackend, RayBackend
from fedexp.core.machine import usable_cpus
from fedexp.core.options import FedexpError


def ensure(backend: BackendConfig) -> None:
    """Refuse a backend that asks for more than there is.

    What a cluster has (``backend.address``) is known once it has been joined.

    Raises:
        FedexpError: With the option, what there is, and the remedy.
    """
    if backend.device == "cuda" and not _gpus():
        raise FedexpError(
            "backend.device=cuda: torch finds no GPU on this machine; backend.device=cpu runs without"
        )
    if isinstance(backend, DeploymentBackend):
        for path in backend.data:
            if not Path(path).exists():
                raise FedexpError(f"backend.data: {path} is not there")
    if not isinstance(backend, RayBackend) or backend.address is not None:
        return
    if backend.num_cpus_per_worker > usable_cpus():
        raise FedexpError(
            f"backend.num_cpus_per_worker={backend.num_cpus_per_worker:g} can never be met: this process "
            f"may use {usable_cpus()} CPUs"
        )
    if backend.num_gpus_per_worker and backend.num_gpus_per_worker > _gpus():
        raise FedexpError(
            f"backend.num_gpus_per_worker={backend.num_gpus_per_worker:g} can never be met: torch finds "
            f"{_gpus()} GPUs on this machine; 0 trains on the CPU"
        )


def _gpus() -> int:
    import torch  # takes a second, which only those pay who ask for a GPU

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
