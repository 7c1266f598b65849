"""What cannot be done for more clients than can be gone through one by one, refused beforehand."""

from __future__ import annotations

from collections.abc import Iterator

from fedexp.config.schema import Config
from fedexp.data.held_out import held_by_clients
from fedexp.strategies.base import ISOLATED

MAX_CLIENTS = 1_000_000_000
"""Clients that there may be."""

MAX_COHORT = 1_000_000
"""Clients that may take part in a round."""

MAX_FAULTY = 100_000
"""Faulty clients, each a row of failures.csv."""

MAX_NODES = 100_000
"""Clients that may have a node of Flower's each."""


def pairing_errors(config: Config) -> Iterator[str]:
    """Yield a line unless the clients are the dataset's own where it draws them, and only there."""
    dataset, partition = config.dataset.name, config.partition.name
    if config.dataset.population is not None and not config.partition.population:
        yield (
            f"dataset={dataset} draws what each client holds, so that nothing can be dealt: partition "
            f"must be population, got {partition!r}"
        )
    if config.partition.population and config.dataset.population is None:
        yield (
            f"partition={partition} needs a dataset that draws what each client holds, such as "
            f"dataset=synthetic_devices, got {dataset!r}"
        )


def population_errors(config: Config) -> Iterator[str]:
    """Yield a line for everything that grows with ``clients.num`` and must not."""
    clients, partition, dataset = config.clients, config.partition, config.dataset
    boundless = partition.with_replacement or partition.population
    yield from _number_errors(config, boundless)
    if clients.num > MAX_CLIENTS and boundless:
        yield f"clients.num must be <= {MAX_CLIENTS}, got {clients.num}"
        return
    if partition.with_replacement and held_by_clients(dataset.validation, dataset.validation_by):
        yield (
            f"partition={partition.name} draws with replacement, so that clients would hold out examples "
            "that they train on: dataset.validation_by must be server, got "
            f"{dataset.validation_by!r}"
        )
    if partition.population and held_by_clients(dataset.validation, dataset.validation_by):
        yield (
            f"partition={partition.name} has no client select on examples of its own: "
            f"dataset.validation_by must be server, got {dataset.validation_by!r}"
        )
    for fraction in ("fraction_train", "fraction_evaluate"):
        share = getattr(clients, fraction)
        if round(share * clients.num) > MAX_COHORT:
            yield (
                f"clients.{fraction}={share:g} of clients.num={clients.num} are more than the "
                f"{MAX_COHORT:,} clients that a round may have: at most {MAX_COHORT / clients.num:.3g}"
            )
    faulty = clients.byzantine.fraction
    if round(faulty * clients.num) > MAX_FAULTY:
        yield (
            f"clients.byzantine.fraction={faulty:g} of clients.num={clients.num} are more than the "
            f"{MAX_FAULTY:,} faulty clients that failures.csv can list: at most "
            f"{MAX_FAULTY / clients.num:.3g}"
        )
    if boundless and config.backend.has_nodes and clients.num > MAX_NODES:
        yield (
            f"backend={config.backend.name} has a node for every client: clients.num must be <= "
            f"{MAX_NODES}, got {clients.num} (backend=ray and backend=inline take any number)"
        )


def _number_errors(config: Config, boundless: bool) -> Iterator[str]:
    """Every client has an example of its own, or all of it is drawn; who is not listed has no model.

    Args:
        config: The experiment.
        boundless: Whether there may be any number of clients.
    """
    spec, clients, dataset = config.dataset.spec, config.clients, config.dataset
    if clients.num > dataset.num_dealt and not boundless:
        held_out = spec.num_train - dataset.num_dealt
        less = f" less the {held_out} that the server holds out" if held_out else ""
        yield (
            f"clients.num must be <= {dataset.num_dealt}, the training examples of dataset="
            f"{dataset.name}{less}, got {clients.num}"
        )
    listed, strategy = config.partition.num_listed(clients.num), config.strategy
    if listed == clients.num:
        return
    remedy = f"clients.num must be <= {listed} (or partition.panel larger), got {clients.num}"
    if strategy.kind == ISOLATED:
        yield f"strategy={strategy.name} trains every client alone, and tests it: {remedy}"
    elif strategy.personalised:
        yield f"strategy={strategy.name} tests every client with a model of its own: {remedy}"
    if clients.unseen:
        yield f"clients.unseen={clients.unseen:g} tests every client that never trained: {remedy}"
