"""Start Ray quietly, for this process alone, once for all jobs of a command.

Imports no torch: Ray's processes start while the driver is still importing it.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from contextlib import ExitStack
from typing import Any

import ray

from fedexp.backends.machines import Crew, machines, workers_on
from fedexp.backends.ray_internals import joining, private_session, session_folder
from fedexp.config.backend import RayBackend
from fedexp.config.plugins import plugins_in_use
from fedexp.config.schema import Config
from fedexp.core.options import FedexpError
from fedexp.core.replies import told
from fedexp.core.signals import kept

_PROMPT = {"free_objects_batch_size": 1}
"""Ray would free what a round leaves once a second; until then every reply goes to memory that was never
touched, at the price of a page fault for every 4 KiB."""

_current: tuple[object, ...] | None = None
_ours = False
"""Whether this process started the session, or is about to."""

_one_at_a_time = threading.Lock()
"""A thread of ``ray_later`` may start a session while the next run asks for another one."""

_warming: list[Any] = []
"""What workers do first, by reference."""

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
    with _one_at_a_time:
        _start(config)


def _start(config: Config) -> None:
    global _current, _ours
    backend = config.backend
    assert isinstance(backend, RayBackend)
    wanted = _wanted(config)
    if ray.is_initialized():
        if wanted == _current:
            crew = crew_of(config)  # another model may need other packages
            if crew is not None and crew.unfit and not crew.workers:
                raise FedexpError(
                    f"backend.address={backend.address}: {crew.complaints()}; install there what is "
                    "here, or end Ray there (`ray stop`)"
                )
            return
        if _current is None:
            raise FedexpError(
                "Ray was started in this process by somebody else: call ray.shutdown() first, or choose "
                "backend=inline"
            )
        _current = None  # should the new session be refused, the old one is gone all the same
        ray.shutdown()
    _ours = backend.address is None
    try:
        if backend.address is None:
            workers = backend.workers_for(config.clients.cohort)
            _init(num_cpus=workers * backend.num_cpus_per_worker)
            _check_capacity(backend)
        else:
            _ensure_answer(backend.address)
            _init(address=backend.address)
            workers = _join(config, backend)
    except BaseException:
        ray.shutdown()
        _ours = False
        raise
    _current = wanted
    warm = ray.remote(
        num_cpus=backend.num_cpus_per_worker, num_gpus=backend.num_gpus_per_worker, max_calls=0
    )(_import_client)
    _warming[:] = [warm.remote() for _ in range(workers)]


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


def end() -> None:
    """End the session that runs, or is being started, as this process ends.

    Linux ends one of our own with us; saying goodbye to it first takes a second and a half.
    """
    if not (_ours and sys.platform == "linux"):
        ray.shutdown()


def is_for(config: Config) -> bool:
    """Say whether a session runs that :func:`start_ray` would keep for an experiment."""
    return _current is not None and _current == _wanted(config) and ray.is_initialized()


def is_warm() -> bool:
    """Say whether the workers of the session that runs have imported what clients need."""
    done, _ = ray.wait(_warming, num_returns=len(_warming), timeout=0)
    return len(done) == len(_warming)


def _wanted(config: Config) -> tuple[object, ...]:
    backend = config.backend
    assert isinstance(backend, RayBackend)
    workers = 0 if backend.address else backend.workers_for(config.clients.cohort)
    return workers, backend.num_cpus_per_worker, backend.num_gpus_per_worker, backend.address


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
