"""Let a dataset draw what clients hold, in place of dealing what was read."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fedexp.config.schema import Config
from fedexp.core.options import FedexpError
from fedexp.data.assignment import Assignment
from fedexp.data.examples import Examples
from fedexp.data.federated import FederatedData
from fedexp.data.loading import check, digest, spec_problem
from fedexp.data.population import TEST, TRAIN, Panel, Population


def populate(config: Config, population: Population) -> FederatedData:
    """Draw the examples of the clients that are listed; those of others are drawn where they train.

    Args:
        config: The experiment.
        population: Its dataset.

    Raises:
        FedexpError: If the dataset draws what is not as its page says.
    """
    clients, what = config.clients.num, f"dataset={config.dataset.name}"
    listed = config.partition.listed(clients, config.seed)
    drawn = [population.draw(client) for client in listed]
    for client, (own, _) in zip(listed, drawn, strict=True):
        if not len(own):
            raise FedexpError(f"{what} draws no training example for client {client}; one at least")
    train, test = (Examples.joined([own[part] for own in drawn]) for part in (TRAIN, TEST))
    check(config.dataset, train, test)
    spec = config.dataset.spec
    for name, examples in (("training", train), ("test", test)):
        problem = spec_problem(config.dataset, spec, examples)
        if problem:
            raise FedexpError(f"{what}: the {name} {problem}")
    sha256 = digest(config.dataset)

    def held(part: Literal[0, 1]) -> Panel:
        ends = np.cumsum([0, *(len(own[part]) for own in drawn)], dtype=np.int64)
        everything = Assignment(np.arange(ends[-1]), ends)
        return Panel(population, part, clients, listed, everything, sha256)

    return FederatedData(spec, train, test, held(TRAIN), held(TEST), population=population)
