"""A machine of a Ray cluster that is lost in the middle of a round costs nothing but seconds."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from support.cluster import cluster
from support.helpers import Recorder, played_by, tiny_data

from fedexp.backends.inline import run as run_inline
from fedexp.backends.ray import run as run_ray
from fedexp.config.backend import InlineBackend, RayBackend
from fedexp.config.clients import ClientsConfig
from fedexp.config.training import TrainingConfig
from fedexp.core.roles import Job
from fedexp.core.weights import hash_weights
from fedexp.federation.evaluation import ServerEvaluation
from fedexp.federation.rounds import RoundLoop
from fedexp.federation.servers import build_server

pytestmark = pytest.mark.slow  # three nodes of Ray, and Ray looks for a lost one for a while

NUM, ROUNDS, LOST_IN = 6, 4, 2
DATA = tiny_data(sizes=(6,) * NUM, test_sizes=(3,) * NUM)

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with cluster(nodes=2) as found:
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", found.token)
        ray.shutdown()  # of an earlier test
        yield found.address
        ray.shutdown()


def _run(backend: Any, work: Any) -> tuple[str, Recorder]:
    experiment = played_by(
        work,
        rounds=ROUNDS,
        backend=backend,
        clients=ClientsConfig(num=NUM),
        training=TrainingConfig(local_steps=2, batch_size=3),
    )
    evaluation, told = ServerEvaluation(experiment, DATA), Recorder()
    loop = RoundLoop(experiment, build_server(experiment, evaluation), evaluation, told)
    where = run_inline if isinstance(backend, InlineBackend) else run_ray
    where(experiment, DATA, loop.run)
    assert loop.outcome.rounds == ROUNDS
    return hash_weights(loop.outcome.weights), told


def _sound(job: Job) -> None:
    job.send(job.train())


def _alive(number: int) -> bool:
    """Wait until so many nodes are up: Ray may take longer to miss one than the run takes."""
    end = time.monotonic() + 60
    while len([node for node in ray.nodes() if node["Alive"]]) != number:
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def test_a_round_completes_whose_node_is_lost(address: str, tmp_path: Path) -> None:
    lost = str(tmp_path / "lost")

    def pulling_the_plug(job: Job) -> None:
        if job.client == 3 and job.round == LOST_IN and not os.path.exists(lost):
            node = psutil.Process(os.getppid())
            with open(lost, "w") as file:
                file.write(node.name())
            # Its raylet and the other workers at once, then this one: the machine is gone.
            for process in [node, *node.children()]:
                if process.pid != os.getpid():
                    process.send_signal(signal.SIGKILL)
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)
        job.send(job.train())

    found, told = _run(RayBackend(address=address), pulling_the_plug)
    assert Path(lost).read_text() == "raylet"
    assert _alive(2), "the head and one node are left"
    assert told.failures == []
    assert found == _run(InlineBackend(), _sound)[0]
