"""Clients that kill or block their worker, and workers that others kill: only who is to blame fails."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from support.helpers import Recorder, played_by, tiny_data

from fedexp.backends import ray as backend
from fedexp.backends import ray_session
from fedexp.config.backend import FlowerBackend, RayBackend
from fedexp.config.clients import ClientsConfig
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.core.roles import Job
from fedexp.core.weights import hash_weights
from fedexp.federation.evaluation import ServerEvaluation
from fedexp.federation.rounds import RoundLoop
from fedexp.federation.servers import build_server

pytestmark = pytest.mark.slow  # workers that die have to start again, which takes seconds

NUM, BAD = 6, 2
DATA = tiny_data(sizes=(6,) * NUM, test_sizes=(3,) * NUM)
ONE = RayBackend(workers=1)  # all clients of a round in one task

# Ray's workers cannot import this module, so what is sent to them carries its code along.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def _experiment(work: Callable[[Job], None], **changes: Any) -> Config:
    changes = {
        "rounds": 2,
        "backend": ONE,
        "clients": ClientsConfig(num=NUM),
        "training": TrainingConfig(local_steps=2, batch_size=3),
        **changes,
    }
    return played_by(work, **changes)


def _run(experiment: Config, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[Any]]:
    """Return the hash of the model and the failures of a run."""
    from importlib import import_module

    monkeypatch.setattr("fedexp.backends.flower._federate_once", lambda _: DATA)
    evaluation, told = ServerEvaluation(experiment, DATA), Recorder()
    loop = RoundLoop(experiment, build_server(experiment, evaluation), evaluation, told)
    where = import_module(f"fedexp.backends.{experiment.backend.name}")
    where.run(experiment, DATA, loop.run)
    return hash_weights(loop.outcome.weights), list(told.failures)


def _dropped(job: Job) -> None:
    if job.client == BAD and job.round == 1:
        raise ConnectionError("gone")
    job.send(job.train())


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the model of the run without the client in the first round."""
    from fedexp.config.backend import InlineBackend

    found, failures = _run(_experiment(_dropped, backend=InlineBackend()), monkeypatch)
    assert [row[:3] for row in failures] == [(1, "train", BAD)]
    return found


def _killing(job: Job) -> None:
    if job.client == BAD and job.round == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    job.send(job.train())


def _leaving(job: Job) -> None:
    if job.client == BAD and job.round == 1:
        os._exit(0)
    job.send(job.train())


def _interrupted(job: Job) -> None:
    if job.client == BAD and job.round == 1:
        raise KeyboardInterrupt
    job.send(job.train())


def _exiting(job: Job) -> None:
    if job.client == BAD and job.round == 1:
        raise SystemExit(3)
    job.send(job.train())


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (_killing, "its worker died, 3 times"),
        (_leaving, "its worker died, 3 times"),
        (_interrupted, "KeyboardInterrupt"),
        (_exiting, "SystemExit: 3"),
    ],
)
@pytest.mark.parametrize("where", [ONE, FlowerBackend(workers=1)], ids=["ray", "flower"])
def test_a_client_that_ends_its_worker_fails_alone(
    work: Callable[[Job], None],
    reason: str,
    where: RayBackend,
    without: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment = _experiment(work, backend=where)
    found, failures = _run(experiment, monkeypatch)
    assert [row[:3] for row in failures] == [(1, "train", BAD)]
    assert failures[0].reason.startswith(reason)
    assert found == without


def _sleeping(job: Job) -> None:
    if job.client == BAD and job.round == 1:
        time.sleep(600)
    job.send(job.train())


@pytest.mark.parametrize("kind", [RayBackend, FlowerBackend], ids=["ray", "flower"])
def test_a_client_that_hangs_fails_alone(
    kind: type[RayBackend], without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = _experiment(_sleeping, backend=kind(workers=1, timeout=3.0))
    started = time.monotonic()
    found, failures = _run(experiment, monkeypatch)
    assert failures == [(1, "train", BAD, "no reply within backend.timeout=3 s")]
    assert found == without
    assert time.monotonic() - started < 120


def _deaf(job: Job) -> None:
    while job.client == BAD and job.round == 1:
        try:
            time.sleep(600)
        except BaseException:
            continue
    job.send(job.train())


def test_a_client_that_no_signal_wakes_loses_its_worker(
    without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "GRACE", 15.0)
    experiment = _experiment(_deaf, backend=RayBackend(workers=1, timeout=1.0))
    found, failures = _run(experiment, monkeypatch)
    assert failures == [(1, "train", BAD, "no reply within backend.timeout=1 s")]
    assert found == without


def test_a_worker_that_somebody_kills_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = str(tmp_path / "killed")

    def killed_once(job: Job) -> None:
        if job.client == BAD and not os.path.exists(marker):
            with open(marker, "w"):
                os.kill(os.getpid(), signal.SIGKILL)
        job.send(job.train())

    def sound(job: Job) -> None:
        job.send(job.train())

    found, failures = _run(_experiment(killed_once), monkeypatch)
    assert os.path.exists(marker)
    assert failures == []
    assert found == _run(_experiment(sound), monkeypatch)[0]


def test_a_client_state_survives_the_death_of_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def counting(job: Job) -> None:
        calls = int(str(job.state.get("calls", 0))) + 1
        job.state["calls"] = calls
        if job.client == BAD and job.round == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        job.send(job.model, numbers={"calls": calls})

    experiment = _experiment(counting, rounds=3)
    ray_session.start_ray(experiment)
    grid = backend.RayGrid(experiment, DATA)
    evaluation, told = ServerEvaluation(experiment, DATA), Recorder()
    RoundLoop(experiment, build_server(experiment, evaluation), evaluation, told).run(grid)
    calls = [state["calls"] for state in grid.client_states().values()]
    assert calls == [2 if client == BAD else 3 for client in range(NUM)]


def test_a_timeout_is_refused_where_it_cannot_be_kept() -> None:
    from fedexp.config.composition import compose_config
    from fedexp.core.options import ConfigError

    with pytest.raises(ConfigError) as told:
        compose_config(["backend=inline", "backend.timeout=5"])
    assert [line.split(":")[0] for line in told.value.errors] == ["backend.timeout"]
    assert compose_config(["backend.timeout=5"]).backend == RayBackend(timeout=5.0)
