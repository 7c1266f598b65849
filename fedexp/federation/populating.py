"""Let a dataset draw what clients hold, in place of dealing what was read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedexp.config.schema import Config
from fedexp.core.options import FedexpError
from fedexp.core.seeding import derive_rng
from fedexp.data.assignment import Assignment, Indices
from fedexp.data.examples import Examples
from fedexp.data.federated import FederatedData
from fedexp.data.held_out import num_held_out
from fedexp.data.loading import check, digest, spec_problem
from fedexp.data.population import TEST, TRAIN, Panel, Population


@dataclass(frozen=True)
class Withholding:
    """A population of which nobody trains on a share of what is drawn for a client.

    Attributes:
        population: Draws examples.
        share: Of every client's training examples, in [0, 1); one at least is trained on.
        seed: Decides which of them are held out.
    """

    population: Population
    share: float
    seed: int

    def draw(self, client: int) -> tuple[Examples, Examples]:
        """Draw the examples that a client trains on, and its test examples."""
        train, test = self.population.draw(client)
        if not self.share:
            return train, test
        return train.subset(np.flatnonzero(~self.held_out(client, len(train)))), test

    def sizes(self, client: int) -> tuple[int, int]:
        """Return how many examples :meth:`draw` returns."""
        num_train, num_test = self.population.sizes(client)
        return num_train - num_held_out(self.share, num_train), num_test

    def held_out(self, client: int, num_train: int) -> npt.NDArray[np.bool_]:
        """Return which of a client's training examples nobody trains on, shape (num_train,)."""
        chosen = np.zeros(num_train, dtype=bool)
        rng = derive_rng(self.seed, "server_validation", 0, client)
        chosen[rng.permutation(num_train)[: num_held_out(self.share, num_train)]] = True
        return chosen


def populate(config: Config, population: Population) -> FederatedData:
    """Draw the examples of the clients that are listed; those of others are drawn where they train.

    With ``dataset.validation``, no client trains on that share of its examples; what the listed ones have
    of it is the server's validation set.

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
    share = config.dataset.validation
    kept = Withholding(population, share, config.partition.own_seed(config.seed))
    sizes = [(len(own), len(of_test)) for own, of_test in drawn]
    out = np.concatenate(
        [kept.held_out(client, num) for client, (num, _) in zip(listed, sizes, strict=True)]
    )
    if share and not out.any():
        raise FedexpError(
            f"dataset.validation={share:g} is less than one example of every client that is listed (the "
            f"largest has {max(num for num, _ in sizes)}): a larger share, or 0"
        )
    sha256 = digest(config.dataset)

    def held(part: Literal[0, 1], positions: Indices) -> Panel:
        offsets = np.cumsum([0, *(kept.sizes(client)[part] for client in listed)], dtype=np.int64)
        own = Assignment(positions, offsets)
        return Panel(kept, part, clients, listed, own, sha256)

    return FederatedData(
        spec,
        train,
        test,
        held(TRAIN, np.flatnonzero(~out)),
        held(TEST, np.arange(len(test), dtype=np.int64)),
        server_val=np.flatnonzero(out),
        population=kept,
    )
