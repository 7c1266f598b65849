"""Where clients run; ``fedexp/backends/`` has a module of the same name for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedexp.core.options import AUTO, one_of, ranged
from fedexp.core.registry import Registry


@dataclass(frozen=True)
class BackendConfig:
    """Where clients run.

    Attributes:
        on_ray: Whether Ray has to be started for it.
    """

    on_ray: ClassVar[bool] = False

    name: str = ""
    device: str = one_of(AUTO, AUTO, "cpu", "cuda")
    """Where clients compute; auto is a GPU where a worker may take one."""
    threads: int = ranged(1, ge=1)
    """CPU threads of a process; 1 is fastest for small models."""

    @property
    def reserves_gpu(self) -> bool:
        """Whether a client may take a GPU where there is one."""
        return True


REGISTRY: Registry[BackendConfig] = Registry("backend", BackendConfig)


@REGISTRY.register
@dataclass(frozen=True)
class InlineBackend(BackendConfig):
    """In this process, one client after another."""

    name: str = "inline"


@REGISTRY.register
@dataclass(frozen=True)
class RayBackend(BackendConfig):
    """On Ray: several clients at a time, on this machine or a cluster."""

    on_ray: ClassVar[bool] = True

    name: str = "ray"
    workers: int | None = ranged(None, ge=1)
    """Processes in which clients run; null is one per num_cpus_per_worker CPUs, at most one per
    client."""
    num_cpus_per_worker: float = ranged(1.0, gt=0)
    """CPUs that a worker takes."""
    num_gpus_per_worker: float = ranged(0.0, ge=0)
    """GPUs that a worker takes; shares such as 0.25 let workers have one together."""
    address: str | None = None
    """A Ray cluster to connect to; null starts Ray on this machine."""
    timeout: float | None = ranged(None, gt=0)
    """Seconds that a client may take for its part of a round; null waits for one that hangs for ever."""

    @property
    def reserves_gpu(self) -> bool:
        """Whether a worker has a share of a GPU of its own."""
        return self.num_gpus_per_worker > 0


@REGISTRY.register
@dataclass(frozen=True)
class FlowerBackend(RayBackend):
    """On Flower's own Simulation Runtime: slower, the reference for the other two."""

    name: str = "flower"
