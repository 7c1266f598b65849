"""Clients: how many there are, and what goes wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fedexp import attacks
from fedexp.core.options import ranged


@dataclass  # not frozen: OmegaConf would refuse overrides of a frozen dataclass two levels down
class ByzantineConfig:
    """Faulty clients: a fixed share of all clients, the same ones in every round.

    ``kind`` is the attack (``label_flip``, ``sign_flip``, ``gaussian``, ``little_is_enough``, or
    your own), ``scale`` is its strength, ``options`` are further options of it.
    """

    fraction: float = ranged(0.0, ge=0, lt=1)
    kind: str = "label_flip"
    scale: float = ranged(1.0, gt=0)
    options: dict[str, Any] = field(default_factory=dict)

    def attack(self) -> attacks.Attack:
        """Return what faulty clients do."""
        return attacks.get(self.kind)(scale=self.scale, **self.options)


@dataclass(frozen=True)
class ClientsConfig:
    """How many clients there are, which share takes part in a round, and what goes wrong with them.

    ``min_success`` is how many of a round's clients must send a usable reply; with fewer, the run ends
    ``failed``. ``dropout`` is the chance that a sampled client fails; ``stragglers`` the chance that one
    trains for fewer epochs than it should.
    """

    num: int = ranged(3, ge=1)
    fraction_train: float = ranged(1.0, gt=0, le=1)
    fraction_evaluate: float = ranged(0.0, ge=0, le=1)
    min_success: int = ranged(1, ge=1)
    dropout: float = ranged(0.0, ge=0, lt=1)
    stragglers: float = ranged(0.0, ge=0, le=1)
    byzantine: ByzantineConfig = field(default_factory=ByzantineConfig)

    def cohort_size(self, fraction: float) -> int:
        """Return how many clients are sampled; at least one."""
        return max(1, round(fraction * self.num))

    @property
    def cohort(self) -> int:
        """Clients that train in a round."""
        return self.cohort_size(self.fraction_train)
