"""A long run needs no more memory, and no more time a round, than a short one."""

from __future__ import annotations

import time

import numpy as np
import psutil
import pytest
from support.helpers import config, tiny_data

from fedexp.backends.inline import InlineGrid
from fedexp.config.clients import ClientsConfig
from fedexp.config.training import TrainingConfig
from fedexp.federation.client import ClientNode
from fedexp.federation.evaluation import ServerEvaluation
from fedexp.federation.events import Listener, RoundReport
from fedexp.federation.guards import Holdings
from fedexp.federation.rounds import RoundLoop
from fedexp.federation.servers import build_server
from fedexp.flower.app import client_app
from fedexp.strategies.scaffold import Scaffold

ROUNDS, WARM = 1000, 200


class Watch(Listener):
    """Notes how much memory the process has, and when, after every round."""

    def __init__(self) -> None:
        self.memory: list[int] = []
        self.cpu: list[float] = []

    def round(self, report: RoundReport) -> None:
        self.memory.append(psutil.Process().memory_info().rss)
        self.cpu.append(time.process_time())


@pytest.mark.slow  # a thousand rounds: half a minute
def test_a_thousand_rounds_stay_flat() -> None:
    """SCAFFOLD keeps the most; now and then a client fails."""
    data = tiny_data()
    clients = ClientsConfig(num=3, fraction_evaluate=1.0, dropout=0.05)
    training = TrainingConfig(local_steps=1, batch_size=4)
    experiment = config(rounds=ROUNDS, strategy=Scaffold(), clients=clients, training=training)
    evaluation, watch = ServerEvaluation(experiment, data), Watch()
    holdings = Holdings(data.partition.size, data.client_test.size)
    server = build_server(experiment, evaluation)
    loop = RoundLoop(experiment, server, evaluation, watch, holdings)
    loop.run(InlineGrid(client_app(ClientNode(experiment, lambda: data)), 3))
    assert loop.outcome.rounds == ROUNDS
    warm, end = watch.memory[WARM], max(watch.memory[WARM:])
    seconds = np.diff(watch.cpu)[WARM:]
    quarter = len(seconds) // 4
    first, last = np.median(seconds[:quarter]), np.median(seconds[-quarter:])
    print(f"memory {warm / 2**20:.0f} MiB, then up to {end / 2**20:.0f} MiB")
    print(f"seconds a round {first:.4f}, then {last:.4f}")
    assert end < 1.05 * warm
    assert last < 1.25 * first
