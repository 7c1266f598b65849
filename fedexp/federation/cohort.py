"""Which clients take part in a round, and which in none."""

from __future__ import annotations

from fedexp.config.schema import Config
from fedexp.core.seeding import Purpose, derive_rng
from fedexp.strategies import ISOLATED


def draw_cohort(config: Config, purpose: Purpose, fraction: float, server_round: int) -> list[int]:
    """Draw the clients of a round, without replacement; at least one, in order of partition.

    Depends on the seed and the round only, so that a round can be repeated on its own.
    """
    rng, clients = derive_rng(config.seed, purpose, server_round), config.clients
    among: int | list[int] = clients.num
    size = max(1, round(fraction * clients.num))
    # Newcomers' alternative is to train alone, so that isolated clients all train.
    if clients.num_unseen and config.strategy.kind != ISOLATED:
        among, size = seen_clients(config), clients.cohort_size(fraction)
    return sorted(rng.choice(among, size, replace=False).tolist())


def unseen_clients(config: Config) -> list[int]:
    """Return the clients that take part in no round of federated training, in order."""
    clients = config.clients
    rng = derive_rng(config.seed, "unseen")
    return sorted(rng.choice(clients.num, clients.num_unseen, replace=False).tolist())


def seen_clients(config: Config) -> list[int]:
    """Return all other clients."""
    unseen = set(unseen_clients(config))
    return [client for client in range(config.clients.num) if client not in unseen]
