"""The floor of ``scripts/benchmark.py``: a plain PyTorch loop that does the SGD steps of an experiment.

    python scripts/floor.py dataset=mnist dataset.root=data partition=iid rounds=3

Two processes of one thread each, float tensors in memory, torch's own layers and its default SGD: no
messages, aggregation, evaluation or files but ./timings.csv.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from fedexp.config.composition import plan
from fedexp.config.schema import Config
from fedexp.core.weights import Weights
from fedexp.data.assignment import Holders
from fedexp.federation.cohort import draw_cohort
from fedexp.federation.dealing import federate
from fedexp.training.network import Network, build_network


def floor(overrides: list[str]) -> None:
    """Run the plain loop for an experiment and write its rounds to ./timings.csv."""
    seconds = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for config in (job.config for job in plan(overrides, multirun=True)):
            # Both processes read the data before the first round is timed.
            list(pool.map(_floor_ready, [overrides] * 2))
            for server_round in range(1, config.num_rounds + 1):
                start = time.perf_counter()
                jobs = [(overrides, server_round, half) for half in (0, 1)]
                list(pool.map(_floor_half, jobs))
                seconds.append(time.perf_counter() - start)
    rows = [f"{k},train,{value}" for k, value in enumerate(seconds, start=1)]
    Path("timings.csv").write_text("\n".join(["round,phase,seconds", *rows]) + "\n")


@dataclass
class _FloorData:
    """What a process of the floor holds from its first call on."""

    config: Config
    partition: Holders
    weights: Weights
    network: Network
    images: torch.Tensor
    labels: torch.Tensor


_floor_data: list[_FloorData] = []


def _floor_ready(overrides: list[str]) -> None:
    torch.set_num_threads(1)
    if not _floor_data:
        config = plan(overrides, multirun=True)[0].config
        data, cpu = federate(config), torch.device("cpu")
        prepare = config.dataset.prepare
        network = build_network(config.model, data.spec, config.seed, cpu, prepare)
        _put_relu_first(network.module)
        _floor_data.append(
            _FloorData(
                config,
                data.partition,
                network.weights(),
                network,
                prepare(torch.from_numpy(data.train.inputs)),
                torch.from_numpy(data.train.targets),
            )
        )
    time.sleep(0.2)  # long enough that the other process takes the other call


def _put_relu_first(module: nn.Module) -> None:
    """Have ReLU before the pooling, as anybody would write it: to the same bits."""
    parts = list(module.children())
    for place, pair in enumerate(pairwise(parts)):
        if isinstance(pair[0], nn.MaxPool2d) and isinstance(pair[1], nn.ReLU):
            assert isinstance(module, nn.Sequential)
            module[place], module[place + 1] = reversed(pair)


def _floor_half(job: tuple[list[str], int, int]) -> None:
    """Train every other client of a round's cohort, largest first."""
    overrides, server_round, half = job
    if not _floor_data:
        _floor_ready(overrides)
    held = _floor_data[0]
    clients, options = held.config.clients, held.config.training
    cohort = draw_cohort(held.config, "cohort", clients.fraction_train, server_round)
    cohort.sort(key=lambda client: -held.partition.size(client))
    for client in cohort[half::2]:
        indices = torch.from_numpy(held.partition.client(client))
        x, y = held.images[indices], held.labels[indices]
        held.network.load(held.weights)
        model = held.network.module
        optimizer = torch.optim.SGD(model.parameters(), options.learning_rate, options.momentum)
        for _ in range(options.local_epochs):
            for batch in torch.randperm(len(y)).split(options.batch_size):
                loss = F.cross_entropy(model(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()


if __name__ == "__main__":
    floor(sys.argv[1:])
