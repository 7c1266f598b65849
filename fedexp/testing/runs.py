"""Small runs that leave no folder, and what must hold of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedexp.config.backend import FlowerBackend, InlineBackend, RayBackend
from fedexp.config.clients import ClientsConfig
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.core.registry import PluginError
from fedexp.core.state import UnsavableError, pack, unpack
from fedexp.federation.events import Ending, Failure, Listener, Measurement, RoundReport
from fedexp.federation.snapshot import Keeper
from fedexp.models.mlp import Mlp
from fedexp.partitions.iid import Iid
from fedexp.testing.tiny import TinyImages

BACKENDS: dict[str, Any] = {
    "inline": InlineBackend(),
    "ray": RayBackend(workers=2),
    "flower": FlowerBackend(workers=2),
}


class DoesNotConform(PluginError):
    """A page that breaks its contract; the message says which part of it."""


def require(holds: bool, otherwise: str) -> None:
    """Raise :class:`DoesNotConform` with a line unless something holds."""
    if not holds:
        raise DoesNotConform(otherwise)


class _Recorder(Listener):
    """Keeps all that a run measured."""

    def __init__(self) -> None:
        self.measurements: list[Measurement] = []
        self.failures: list[Failure] = []

    def round(self, report: RoundReport) -> None:
        self.measurements += report.measurements
        self.failures += report.failures if report.round else []  # round 0 says who is faulty


class _FirstRound(Keeper):
    """Keeps what a checkpoint would hold after the first round."""

    def __init__(self) -> None:
        self.content = b""

    def is_due(self, server_round: int) -> bool:
        return server_round == 1

    def save(self, server_round: int, state: Callable[[], dict[str, Any]]) -> None:
        if server_round == 1:
            self.content = pack(state())


def run(
    config: Config, keeper: Keeper | None = None, resume: Mapping[str, Any] | None = None
) -> tuple[Ending, _Recorder]:
    """Run an experiment that leaves no folder."""
    from fedexp.experiment import Attempt, quieten_flower

    quieten_flower()
    recorder = _Recorder()
    return Attempt(config, recorder, keeper, resume, verbose=False).complete(), recorder


def resumes_alike(config: Config) -> None:
    """Run, and run again from what was kept after round 1; both must come to the same bits."""
    keeper = _FirstRound()
    try:
        whole, told = run(config, keeper)
    except UnsavableError as error:
        raise DoesNotConform(f"a run cannot be resumed: {error}") from error
    ending, rest = run(config, resume=unpack(keeper.content))
    require(
        ending.summary["model_sha256"] == whole.summary["model_sha256"]
        and _rows(rest) == [repr(row) for row in told.measurements if row.round > 1]
        and _last(ending) == _last(whole),
        "a run that is resumed comes to other numbers: keep what the server remembers in attributes "
        "that hold arrays, numbers, words or collections of them, and what clients remember in job.state",
    )


def small(**changes: Any) -> Config:
    """Return an experiment of few examples and steps, in this process."""
    experiment: dict[str, Any] = {
        "rounds": 2,
        "dataset": TinyImages(),
        "partition": Iid(samples_per_client=20),
        "model": Mlp(hidden=[8]),
        "clients": ClientsConfig(num=3, fraction_evaluate=1.0),
        "training": TrainingConfig(local_steps=3, batch_size=8),
        "backend": InlineBackend(),
    }
    return Config(**{**experiment, **changes})


def same_everywhere(
    config: Config, backends: Sequence[str], *, without_failures: bool = False
) -> Ending:
    """Run on every backend, and twice on the first; all must give the same bits."""
    first, told = run(replace(config, backend=BACKENDS[backends[0]]))
    for failure in told.failures if without_failures else []:
        require(False, f"client {failure.client} fails to {failure.phase}: {failure.reason}")
    for name in backends:
        ending, again = run(replace(config, backend=BACKENDS[name]))
        same = ending.summary["model_sha256"] == first.summary["model_sha256"]
        require(same, f"backend={name} gives another model than backend={backends[0]}")
        require(
            _rows(again) == _rows(told) and _last(ending) == _last(first),
            f"backend={name} gives other numbers than backend={backends[0]}",
        )
    return first


def _last(ending: Ending) -> list[str]:
    return [repr(row) for row in (*ending.measurements, *ending.further)]


def _rows(told: _Recorder) -> list[str]:
    return [repr(row) for row in told.measurements]
