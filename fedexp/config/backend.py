"""Where clients run; ``fedexp/backends/`` has a module of the same name for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from fedexp.core.machine import usable_cpus
from fedexp.core.options import AUTO, ConfigError, Plan, one_of, ranged
from fedexp.core.registry import Registry


@dataclass(frozen=True)
class BackendConfig:
    """Where clients run.

    Attributes:
        takes_code: Whether clients are sent what a script has registered; else it must be installed where
            they run.
        has_nodes: Whether every client has a node of Flower's, so that a run's cost follows their number.
        has_own_data: Whether clients are on machines that may have examples of their own.
    """

    takes_code: ClassVar[bool] = True
    has_nodes: ClassVar[bool] = False
    has_own_data: ClassVar[bool] = False

    name: str = ""
    device: str = one_of(AUTO, AUTO, "cpu", "cuda")
    """Where clients compute; auto is a GPU where a worker may take one."""
    threads: int = ranged(1, ge=1)
    """CPU threads of a process; 1 is fastest for small models."""
    portable: bool = False
    """Have torch compute as a processor with AVX2 does, whatever else this one can do: the same bits on
    all x86-64 machines that have AVX2. It takes more time. false takes all that the processor can do."""

    @property
    def reserves_gpu(self) -> bool:
        """Whether a client may take a GPU where there is one."""
        return True

    @property
    def gpu_share(self) -> float:
        """Which part of a GPU is a process's, in (0, 1]."""
        return 1.0

    @property
    def stacked(self) -> int | None:
        """How many clients a process may train together; None is as many as a GPU has memory for."""
        return 1

    @property
    def module(self) -> str:
        """The module of ``fedexp/backends/`` that runs it."""
        return self.name

    @property
    def starts_ray(self) -> bool:
        """Whether Ray is started before anything is trained."""
        return False

    @property
    def jobs_at_once(self) -> int | None:
        """How many runs of a multirun run side by side; None is as many as there is room for."""
        return 1

    def nodes_here(self, num_clients: int, *, own_data: bool = False) -> list[str]:
        """Return what each of Flower's SuperNodes holds that are to be started on this machine.

        Args:
            num_clients: Clients in all.
            own_data: Whether each must have files of its own.
        """
        return []

    def errors(self, plan: Plan) -> Iterable[str]:
        """Return a line for every rule between options that is broken."""
        return []


REGISTRY: Registry[BackendConfig] = Registry("backend", BackendConfig)


@REGISTRY.register
@dataclass(frozen=True)
class InlineBackend(BackendConfig):
    """In this process, one client after another."""

    name: str = "inline"
    stack: int | None = ranged(None, ge=1)
    """Clients of equal work that are trained together, in one batch; null is 1 on a CPU, and on a GPU as
    many as its memory holds."""

    @property
    def stacked(self) -> int | None:
        """What was asked for."""
        return self.stack


@REGISTRY.register
@dataclass(frozen=True)
class RayBackend(BackendConfig):
    """On Ray: several clients at a time, on this machine or a cluster."""

    name: str = "ray"
    workers: int | None = ranged(None, ge=1)
    """Processes in which clients run, on a cluster in all, started before anything is trained. null is
    one per num_cpus_per_worker CPUs, at most one per client of a round; on this machine they are started
    in long runs, and until then clients run in this process and its forks."""
    jobs: int | None = ranged(None, ge=1)
    """Runs of a multirun that run side by side, each in a process of its own; null is one per CPU,
    from four runs on, if the first takes less than a minute. 1 runs one after another."""
    num_cpus_per_worker: float = ranged(1.0, gt=0)
    """CPUs that a worker takes."""
    num_gpus_per_worker: float = ranged(0.0, ge=0)
    """GPUs that a worker takes; shares such as 0.25 let workers have one together."""
    address: str | None = None
    """HOST:PORT of a Ray cluster to join, or auto for this machine's; null starts Ray here."""
    timeout: float | None = ranged(None, gt=0)
    """Seconds that a client may take for its part of a round; null waits for one that hangs for ever."""
    stack: int | None = ranged(None, ge=1)
    """Clients of equal work that a worker trains together, in one batch; null is 1 on a CPU, and on a GPU
    as many as the worker's share of its memory holds."""

    @property
    def reserves_gpu(self) -> bool:
        """Whether a worker has a share of a GPU of its own."""
        return self.num_gpus_per_worker > 0

    @property
    def gpu_share(self) -> float:
        """A worker's part of its GPU; all of it where it has several."""
        return min(1.0, self.num_gpus_per_worker) or 1.0

    @property
    def stacked(self) -> int | None:
        """What was asked for; one where every client has a time of its own."""
        return self.stack if self.timeout is None else 1

    def errors(self, plan: Plan) -> Iterable[str]:
        """A cluster is joined where its head listens; who has workers runs no jobs side by side."""
        if self.stack not in (None, 1) and self.timeout is not None:
            yield (
                f"backend.stack={self.stack} trains clients together, and backend.timeout stops them one "
                "by one: leave one of the two out"
            )
        if self.device == "cuda" and not self.reserves_gpu:
            yield (
                "backend.device=cuda: Ray's workers are given no GPU; say what each takes in "
                "backend.num_gpus_per_worker, or choose backend=inline"
            )
        if self.jobs not in (None, 1) and self.starts_ray:
            yield (
                f"backend.jobs={self.jobs} leaves clients in the process of their run: leave out "
                "backend.workers, timeout, address, stack and num_gpus_per_worker, which ask for workers"
            )
        if self.address not in (None, "auto") and not _is_host_and_port(self.address):
            yield (
                "backend.address must be HOST:PORT, as `ray start --head` says, or auto for the cluster "
                f"that this machine is part of, got {self.address!r}"
            )

    @property
    def module(self) -> str:
        """Another one where workers may come later."""
        return self.name if self.starts_ray else "ray_later"

    @property
    def starts_ray(self) -> bool:
        """Whether somebody asked for workers, or for what only workers can do."""
        asked = (self.workers, self.address, self.timeout)
        stacks = self.stack not in (None, 1)
        return self.reserves_gpu or stacks or any(option is not None for option in asked)

    @property
    def jobs_at_once(self) -> int | None:
        """What was asked for; one, where that has workers."""
        return 1 if self.starts_ray else self.jobs

    def workers_for(self, cohort: int) -> int:
        """Return how many workers a run has on this machine.

        Args:
            cohort: Clients of a round.
        """
        if self.workers is not None:
            return self.workers
        return min(max(1, int(usable_cpus() / self.num_cpus_per_worker)), cohort)


@REGISTRY.register
@dataclass(frozen=True)
class FlowerBackend(RayBackend):
    """On Flower's own Simulation Runtime: slower, the reference for the other two."""

    has_nodes: ClassVar[bool] = True

    name: str = "flower"

    @property
    def module(self) -> str:
        """Its own; nodes are Ray's actors."""
        return self.name

    @property
    def stacked(self) -> int | None:
        """One: Flower's runtime calls one client at a time."""
        return 1

    def errors(self, plan: Plan) -> Iterable[str]:
        """Flower's runtime calls one client at a time."""
        yield from super().errors(plan)
        if self.stack not in (None, 1):
            yield (
                f"backend.stack={self.stack} trains clients together, and backend=flower calls them one "
                "by one: leave it out, or choose backend=ray or inline"
            )

    @property
    def starts_ray(self) -> bool:
        """Always."""
        return True


@REGISTRY.register
@dataclass(frozen=True)
class DeploymentBackend(BackendConfig):
    """On SuperNodes: a client on each, each a program of its own, here or on other machines."""

    takes_code: ClassVar[bool] = False
    has_nodes: ClassVar[bool] = True
    has_own_data: ClassVar[bool] = True

    name: str = "deployment"
    nodes: int | None = ranged(None, ge=1)
    """SuperNodes to start on this machine, with a SuperLink, for a rehearsal; null is one per client."""
    data: list[str] = field(default_factory=list)
    """For dataset=on_nodes in a rehearsal: file or folder of each SuperNode, which nobody else reads."""
    superlink: str | None = None
    """HOST:PORT of a SuperLink that runs, and that SuperNodes have joined; null starts both here."""
    root_certificates: str | None = None
    """File with the authority that signed the SuperLink's certificate; null asks this machine's own."""
    insecure: bool = False
    """Speak to the SuperLink in plain text, where it was started with --insecure."""
    secret: str | None = None
    """The file that the SuperLink was given as --superexec-auth-secret-file."""
    timeout: float | None = ranged(None, gt=0)
    """Seconds that a SuperNode may take to answer; null waits until the SuperLink has missed it."""

    def nodes_here(self, num_clients: int, *, own_data: bool = False) -> list[str]:
        """Return what SuperNodes hold that are to be started on this machine, as their node config.

        Raises:
            ConfigError: If each must have files of its own, and these are not named.
        """
        if self.superlink is not None:
            return []
        if own_data and not self.data:
            raise ConfigError(
                [
                    f"dataset=on_nodes: name the file of each of the {num_clients} SuperNodes that are "
                    "started here, backend.data=[a.csv,b.csv], or backend.superlink=HOST:PORT"
                ]
            )
        files = [f" data='{Path(path).absolute()}'" for path in self.data] or [""] * num_clients
        return [
            f"partition-id={k} num-partitions={num_clients}{held}" for k, held in enumerate(files)
        ]

    def errors(self, plan: Plan) -> Iterable[str]:
        """A node is a client, and what is said of a SuperLink needs one."""
        num = plan.clients.num
        yield from self._data_errors(plan)
        if self.superlink is None:
            if self.nodes not in (None, num):
                yield (
                    f"backend.nodes must be clients.num={num}, as every client has a SuperNode of its "
                    f"own, got {self.nodes}"
                )
            for option in ("root_certificates", "insecure", "secret"):
                if getattr(self, option):
                    yield (
                        f"backend.{option} is about a SuperLink that runs already: name it in "
                        "backend.superlink"
                    )
            return
        if not _is_host_and_port(self.superlink):
            yield f"backend.superlink must be HOST:PORT, got {self.superlink!r}"
        if self.nodes is not None:
            yield (
                "backend.nodes starts SuperNodes on this machine, which backend.superlink="
                f"{self.superlink} has of its own: leave one of the two out"
            )
        if self.insecure and self.root_certificates is not None:
            yield "backend.insecure=true encrypts nothing: leave out backend.root_certificates"

    def _data_errors(self, plan: Plan) -> Iterable[str]:
        """Nodes of a rehearsal have files of their own where the dataset asks for that."""
        named = f"dataset={plan.dataset.name}"
        if not plan.dataset.remote:
            if self.data:
                yield f"backend.data is for dataset=on_nodes: leave it out, {named} is dealt in shares"
        elif self.superlink is not None:
            if self.data:
                yield (
                    f"backend.data starts SuperNodes on this machine; those of backend.superlink="
                    f"{self.superlink} say themselves what they hold (--node-config 'data=\"PATH\"')"
                )
        elif self.data and len(self.data) != plan.clients.num:
            yield (
                f"backend.data must name a file for each of clients.num={plan.clients.num} SuperNodes, "
                f"got {len(self.data)}"
            )
        for path in self.data:
            if "'" in path:
                yield f"backend.data: a path must not hold ', got {path}"


def _is_host_and_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and "/" not in host and port.isdecimal() and 0 < int(port) < 2**16
