"""Start Ray quietly on this machine only, once for all jobs of a command.

Imports no torch: Ray's processes start while the driver is still importing it.
"""

from __future__ import annotations

import logging
import os

import ray

from fedexp.config import FedexpError, RayBackend

_current: tuple[object, ...] | None = None


def start_ray(backend: RayBackend, *, verbose: bool) -> None:
    """Start Ray for a backend, or keep the session that runs if it is the same.

    Returns as soon as Ray can take work; workers go on importing torch meanwhile.

    Raises:
        FedexpError: If ``backend.address`` cannot be joined, or no worker would ever fit.
    """
    global _current
    wanted = (backend.workers, backend.num_cpus_per_worker, backend.num_gpus_per_worker)
    key = (*wanted, backend.address, verbose)
    if ray.is_initialized():
        if key == _current:
            return
        ray.shutdown()
    # A worker without a GPU sees none; this silences Ray's notice about a future default.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    workers = backend.workers or max(1, int(usable_cpus() / backend.num_cpus_per_worker))
    if backend.address is None:
        _init(verbose, num_cpus=workers * backend.num_cpus_per_worker)
    else:
        _init(verbose, address=backend.address)
    _current = key
    _check_capacity(backend)
    warm = ray.remote(
        num_cpus=backend.num_cpus_per_worker, num_gpus=backend.num_gpus_per_worker, max_calls=0
    )(_import_client)
    for _ in range(workers):
        warm.remote()


def _init(verbose: bool, num_cpus: float | None = None, address: str | None = None) -> None:
    options = {} if address else {"num_cpus": num_cpus, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(
            address=address,
            include_dashboard=False if address is None else None,
            log_to_driver=verbose,
            logging_level=logging.INFO if verbose else logging.ERROR,
            **options,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise FedexpError(
            f"Ray did not start (backend.address={address}): {error}. "
            "backend=inline runs without Ray."
        ) from error


def _check_capacity(backend: RayBackend) -> None:
    have = ray.cluster_resources()
    for option, needed, kind in (
        ("num_cpus_per_worker", backend.num_cpus_per_worker, "CPU"),
        ("num_gpus_per_worker", backend.num_gpus_per_worker, "GPU"),
    ):
        if needed > have.get(kind, 0):
            raise FedexpError(
                f"backend.{option}={needed} can never be met: Ray has {have.get(kind, 0):g} {kind}"
            )


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _import_client() -> None:
    import fedexp.client  # noqa: F401
