"""The machines of a Ray cluster that somebody else started: which there are, and whether they fit.

Machines come and go while a run is on. What they compute is the same to the bit only if they run the same
code, so each is asked for its versions before its results count.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fedexp.config.backend import RayBackend

FEDEXP = "fedexp"

PACKAGES = (FEDEXP, "flwr", "torch", "torchvision", "numpy", "scipy", "scikit-learn")
"""What a client's result may depend on; Ray itself and Python are compared by Ray."""

SOURCE, PROCESSOR = "fedexp's source", "processor"
"""Stand beside the versions: a checkout's version number does not change with its files, and processors
of another type round differently."""

PATIENCE = 60.0
"""Seconds that a machine may take to say what it has; a process of Python starts for it."""


class Machine(NamedTuple):
    """A machine that is up.

    Attributes:
        node: Ray's name for it.
        address: Its IP address.
        have: What it has to offer: ``CPU`` and ``GPU``, as far as there are any.
    """

    node: str
    address: str
    have: Mapping[str, float]


class Crew:
    """The machines that a run's clients may run on, as they come and go.

    Args:
        backend: How much a worker takes.
        packages: What the run's results may depend on beside :data:`PACKAGES`.

    Attributes:
        workers: How many workers fit at the same time; 0 if there is no room for one.
        unfit: Machines that are up and must not be used, by node: why not, in words.
        news: What was found out since the machines were first looked at; whoever reads it empties it.
        own: What this machine has, by name.
    """

    def __init__(self, backend: RayBackend, packages: Iterable[str] = ()) -> None:
        self._backend = backend
        self._names = tuple(dict.fromkeys((*PACKAGES, *packages)))
        self._up: dict[str, Machine] = {}
        self._asked: dict[Any, tuple[Machine, float]] = {}
        self._looked = -math.inf
        self.own = _installed(self._names, SOURCE, PROCESSOR)()
        self.unfit: dict[str, str] = {}
        self.news: list[str] = []
        self.workers = 0
        self._other: dict[str, str] = {}
        self.look(patience=PATIENCE)
        self.news.clear()

    def look(self, *, every: float = 0.0, patience: float = 0.0) -> None:
        """Find out which machines there are now, and ask those that are new what they have.

        Args:
            every: Seconds since the last look, before which there is nothing to do.
            patience: Seconds to wait for answers; those that come later are read at a later look.
        """
        if time.monotonic() < self._looked + every:
            return
        up = {machine.node: machine for machine in machines()}
        for node in self._up.keys() - up.keys():
            self.news.append(f"{self._up[node].address} has left the cluster")
            self.unfit.pop(node, None)
        new = [up[node] for node in up.keys() - self._up.keys()]
        self._up = up
        self._asked = {task: one for task, one in self._asked.items() if one[0].node in up}
        self._ask([machine for machine in new if workers_on(machine.have, self._backend)])
        self._listen(patience)
        unknown = {machine.node for machine, _ in self._asked.values()}
        fit = [machine for node, machine in up.items() if node not in self.unfit.keys() | unknown]
        found = sum(workers_on(machine.have, self._backend) for machine in fit)
        if self.workers and not found:
            self.news.append("no machine of the cluster has room for a worker; waiting for one")
        self.workers = found
        self._looked = time.monotonic()

    def _ask(self, new: Sequence[Machine]) -> None:
        """Ask machines for what they have."""
        if new:
            look = ray.remote(num_cpus=0, max_retries=0)(_installed(self._names, SOURCE, PROCESSOR))
            until = time.monotonic() + PATIENCE
            self._asked |= {look.options(**_on(m)).remote(): (m, until) for m in new}

    def _listen(self, patience: float) -> None:
        """Read what machines have answered, and give up those that are late."""
        if not self._asked:
            return
        tasks = list(self._asked)
        ready, late = ray.wait(tasks, num_returns=len(tasks), timeout=patience)
        for task in ready:
            self._judge(self._asked.pop(task)[0], task)
        for task in late:
            machine, until = self._asked[task]
            if time.monotonic() >= until:
                del self._asked[task]
                ray.cancel(task, force=True)
                self._refuse(machine, f"says nothing for {PATIENCE:g} s")

    def _judge(self, machine: Machine, task: Any) -> None:
        try:
            theirs = ray.get(task)
        except ray.exceptions.RayTaskError as error:
            told = " ".join(str(error.cause).split())
            self._refuse(machine, f"cannot say what it has ({told})")
            return
        except ray.exceptions.RayError:  # it is gone, which is seen at the next look
            return
        if told := compared(self.own, theirs):
            self._refuse(machine, told)
            return
        if theirs[PROCESSOR] != self.own[PROCESSOR]:
            self._other[machine.node] = str(theirs[PROCESSOR])
        self.news.append(f"{self._offer(machine)} can be used")

    def _refuse(self, machine: Machine, why: str) -> None:
        self.unfit[machine.node] = why
        self.news.append(f"{machine.address} is not used: it {why}")

    def _offer(self, machine: Machine) -> str:
        counts = {kind: machine.have.get(kind, 0.0) for kind in ("CPU", "GPU")}
        has = ", ".join(f"{count:g} {kind}" for kind, count in counts.items() if count)
        other = self._other.get(machine.node)
        but = f"; last bits may differ: {other}, here {self.own[PROCESSOR]}" if other else ""
        return f"{machine.address} ({has or 'no CPU'}{but})"

    def summary(self) -> str:
        """Return what machines have to offer, and which are not used."""
        fit = [machine for node, machine in self._up.items() if node not in self.unfit]
        told = [", ".join(map(self._offer, fit)), f"not used: {self.complaints()}"]
        return "; ".join(told[: 1 + bool(self.unfit)])

    def complaints(self) -> str:
        """Return what is wrong with machines, each with its address; empty if nothing is."""
        lines = [f"{self._up[node].address} {why}" for node, why in self.unfit.items()]
        return "; ".join(lines)

    def placement(self) -> dict[str, Any]:
        """Return the options of Ray's tasks that keep them off machines that are not to be used."""
        if not self.unfit:
            return {}
        return {"label_selector": {"ray.io/node-id": f"!in({','.join(self.unfit)})"}}


def ensure_same(own: Mapping[str, str | None] | None) -> None:
    """In a worker: refuse to work where something else is installed than where the run was started.

    A machine that joins in mid-run is given work before anybody has asked it.

    Args:
        own: What the driver's machine has; None where workers are on that machine.

    Raises:
        RuntimeError: If it is not as here.
    """
    if own is not None:
        names = [name for name in own if name not in (SOURCE, PROCESSOR)]
        if told := compared(own, _installed(names, SOURCE, PROCESSOR)()):
            raise RuntimeError(f"this machine {told}")


def workers_on(have: Mapping[str, float], backend: RayBackend) -> int:
    """Return how many workers fit on one machine, with its CPUs and GPUs."""
    by_cpu = int(have.get("CPU", 0.0) / backend.num_cpus_per_worker)
    share = backend.num_gpus_per_worker
    if not share:
        return by_cpu
    gpus = have.get("GPU", 0.0)
    # Shares of one worker never lie on two GPUs.
    by_gpu = int(gpus) * int(1 / share) if share < 1 else int(gpus / share)
    return min(by_cpu, by_gpu)


def machines() -> list[Machine]:
    """Return the machines of the cluster that this process has joined. It takes half a millisecond."""
    return [
        Machine(node["NodeID"], node["NodeManagerAddress"], node["Resources"])
        for node in ray.nodes()
        if node["Alive"]
    ]


def compared(mine: Mapping[str, str | None], theirs: Mapping[str, str | None]) -> str:
    """Say in words what another machine has installed that is not as here; empty if all is.

    Args:
        mine: What this machine has, by name; None for what it lacks.
        theirs: What the other one has.
    """
    parts = []
    for name, version in mine.items():
        other = theirs.get(name)
        if name == PROCESSOR or other == version:
            continue
        if name == SOURCE:
            if theirs.get(FEDEXP) == mine[FEDEXP]:
                parts.append("other files of fedexp")
        else:
            parts.append(f"{name} {other} ({version or 'none'} here)" if other else f"no {name}")
    return f"has {', '.join(parts)}" if parts else ""


def _on(machine: Machine) -> dict[str, Any]:
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(machine.node, soft=False)}


def _installed(
    names: Sequence[str], source: str, processor: str
) -> Callable[[], dict[str, str | None]]:
    """Return a function that travels by value: where it is called, there may be no fedexp."""

    def look() -> dict[str, str | None]:
        import platform
        from hashlib import sha256
        from importlib.metadata import PackageNotFoundError, version
        from importlib.util import find_spec
        from pathlib import Path

        found: dict[str, str | None] = {}
        for name in names:
            try:
                found[name] = version(name).partition("+")[0]  # builds for a GPU and for none
            except PackageNotFoundError:
                found[name] = None
        spec, digest = find_spec("fedexp"), sha256()  # imports nothing
        for top in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(top).rglob("*.py")):
                digest.update(f"{path.relative_to(top).as_posix()}\n".encode())
                digest.update(path.read_bytes())
        found[source] = digest.hexdigest()
        try:
            lines = Path("/proc/cpuinfo").read_text().splitlines()
        except OSError:  # not Linux
            lines = []
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        found[processor] = models[0] if models else platform.machine()
        return found

    return look
