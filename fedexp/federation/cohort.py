"""Which clients take part in a round."""

from __future__ import annotations

from fedexp.config.schema import Config
from fedexp.core.seeding import Purpose, derive_rng


def draw_cohort(config: Config, purpose: Purpose, fraction: float, server_round: int) -> list[int]:
    """Draw the clients of a round, without replacement; at least one, in order of partition.

    Depends on the seed and the round only, so that a round can be repeated on its own.
    """
    size = config.clients.cohort_size(fraction)
    rng = derive_rng(config.seed, purpose, server_round)
    return sorted(rng.choice(config.clients.num, size, replace=False).tolist())
