"""Start Ray quietly, for this process alone, once for all jobs of a command.

Imports no torch: Ray's processes start while the driver is still importing it.
"""

from __future__ import annotations

import logging
import socket
from contextlib import ExitStack
from typing import Any

import ray

from fedexp.backends.machines import Crew, machines, workers_on
from fedexp.backends.ray_internals import joining, private_session, session_folder
from fedexp.config.backend import RayBackend
from fedexp.config.plugins import plugins_in_use
from fedexp.config.schema import Config
from fedexp.core.machine import usable_cpus
from fedexp.core.options import FedexpError
from fedexp.core.replies import told
from fedexp.core.signals import kept

_PROMPT = {"free_objects_batch_size": 1}
"""Ray would free what a round leaves once a second; until then every reply goes to memory that was never
touched, at the price of a page fault for every 4 KiB."""

_current: tuple[object, ...] | None = None

_crews: dict[tuple[str, ...], Crew] = {}
"""Of the cluster that was joined, by the packages that machines were asked for."""

ANSWER = 10.0
"""Seconds that a cluster's head may take to accept a connection; Ray itself would try for minutes."""


def start_ray(config: Config) -> None:
    """Start Ray for an experiment, or keep the session that runs if it is the same.

    Returns as soon as Ray can take work; workers go on importing torch meanwhile.

    Raises:
        FedexpError: If ``backend.address`` cannot be joined, or no worker would ever fit.
    """
    global _current
    backend = config.backend
    assert isinstance(backend, RayBackend)
    workers = 0 if backend.address else backend.workers or _default_workers(config, backend)
    wanted = (workers, backend.num_cpus_per_worker, backend.num_gpus_per_worker, backend.address)
    if ray.is_initialized():
        if wanted == _current:
            return
        if _current is None:
            raise FedexpError(
                "Ray was started in this process by somebody else: call ray.shutdown() first, or choose "
                "backend=inline"
            )
        _current = None  # should the new session be refused, the old one is gone all the same
        ray.shutdown()
    try:
        if backend.address is None:
            _init(num_cpus=workers * backend.num_cpus_per_worker)
            _check_capacity(backend)
        else:
            _ensure_answer(backend.address)
            _init(address=backend.address)
            workers = _join(config, backend)
    except BaseException:
        ray.shutdown()
        raise
    _current = wanted
    warm = ray.remote(
        num_cpus=backend.num_cpus_per_worker, num_gpus=backend.num_gpus_per_worker, max_calls=0
    )(_import_client)
    for _ in range(workers):
        warm.remote()


def crew_of(config: Config) -> Crew | None:
    """Return the machines of the cluster that was joined; None where Ray was started here."""
    backend = config.backend
    assert isinstance(backend, RayBackend)
    if backend.address is None:
        return None
    used = (entry.get("package") for entry in plugins_in_use(config))
    packages = (*config.model.packages, *(package for package in used if package))
    if packages not in _crews:
        _crews[packages] = Crew(backend, packages)
    return _crews[packages]


def _join(config: Config, backend: RayBackend) -> int:
    """Look what a cluster has to offer; return how many workers it gets.

    Raises:
        FedexpError: If no machine has room for a worker, or one has something else installed.
    """
    _crews.clear()
    have = [machine.have for machine in machines()]
    if not any(workers_on(one, backend) for one in have):
        most = {kind: max(one.get(kind, 0.0) for one in have) for kind in ("CPU", "GPU")}
        raise FedexpError(
            f"backend.num_cpus_per_worker={backend.num_cpus_per_worker:g}, backend.num_gpus_per_worker="
            f"{backend.num_gpus_per_worker:g} can never be met: the most that a machine of the cluster "
            f"{backend.address} has is {most['CPU']:g} CPU, {most['GPU']:g} GPU"
        )
    crew = crew_of(config)
    assert crew is not None
    if why := crew.complaints():
        raise FedexpError(
            f"backend.address={backend.address}: {why}; install there what is here, or end Ray there "
            "(`ray stop`)"
        )
    return min(crew.workers, backend.workers or crew.workers, config.clients.cohort)


def _ensure_answer(address: str) -> None:
    """Refuse an address that nobody listens at."""
    if address == "auto":  # Ray knows what was started on this machine
        return
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER):
            pass
    except OSError as error:
        raise FedexpError(
            f"backend.address={address}: nobody answers there ({told(error)}); `ray start --head` says "
            "where a cluster can be joined; without backend.address, Ray is started on this machine"
        ) from error


def _default_workers(config: Config, backend: RayBackend) -> int:
    """Return a worker for every ``num_cpus_per_worker`` CPUs, but no more than a round has clients."""
    by_cpu = max(1, int(usable_cpus() / backend.num_cpus_per_worker))
    return min(by_cpu, config.clients.cohort)


def _init(num_cpus: float | None = None, address: str | None = None) -> None:
    options: dict[str, Any] = {}
    if address is None:
        options = {
            "num_cpus": num_cpus,
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": session_folder(),
            "include_dashboard": False,
            "_system_config": _PROMPT,
        }
    try:
        with ExitStack() as stack:
            stack.enter_context(kept())
            stack.enter_context(private_session() if address is None else joining())
            ray.init(
                address=address or "local",  # None would be what RAY_ADDRESS says
                log_to_driver=False,
                logging_level=logging.ERROR,
                **options,
            )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        why = " ".join(str(error).split()).removesuffix(".")
        if address is not None:
            raise FedexpError(
                f"backend.address={address}: this machine cannot join ({why}); it must be one of the "
                f"cluster (`ray start --address={address}`), and the cluster's token, where it has one, "
                "must stand in RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token"
            ) from error
        raise FedexpError(f"Ray did not start: {why}; backend=inline runs without Ray") from error


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


def _import_client() -> None:
    import fedexp.federation.client
    import fedexp.flower.app  # noqa: F401
