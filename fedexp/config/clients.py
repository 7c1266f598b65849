"""Clients: how many there are, and what goes wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fedexp import attacks
from fedexp.core.options import ranged


@dataclass  # not frozen: OmegaConf would refuse overrides of a frozen dataclass two levels down
class ByzantineConfig:
    """Faulty clients: a fixed share of all clients, the same ones in every round."""

    fraction: float = ranged(0.0, ge=0, lt=1)
    """Share of all clients that are faulty, the same ones in every round."""
    kind: str = "label_flip"
    """What faulty clients do: an attack (fedexp help attack)."""
    scale: float = ranged(1.0, gt=0)
    """Strength of the attack, in a unit of its own."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further options of the attack, as clients.byzantine.options.NAME=VALUE."""

    def attack(self) -> attacks.Attack:
        """Return what faulty clients do."""
        return attacks.get(self.kind)(scale=self.scale, **self.options)


@dataclass(frozen=True)
class ClientsConfig:
    """How many clients there are, which share takes part in a round, and what goes wrong with them."""

    num: int = ranged(3, ge=1)
    """Number of clients; with partition=given, as many as the data name owners."""
    fraction_train: float = ranged(1.0, gt=0, le=1)
    """Share of the clients that train in a round."""
    fraction_evaluate: float = ranged(0.0, ge=0, le=1)
    """Share of the clients that evaluate the new global model on their own test examples in a
    round."""
    min_success: int = ranged(1, ge=0)
    """Clients of a round that must send a usable reply; with fewer, the run ends as failed. With 0,
    a round in which no client does leaves the model as it is."""
    unseen: float = ranged(0.0, ge=0, lt=1)
    """Share of all clients that take no part in training, the same ones in every round: they are tested
    at the end, as newcomers. Isolated clients train, each alone, whether unseen or not."""
    tuned_steps: int = ranged(0, ge=0)
    """SGD steps on its own examples that every client takes at the end from the model that it is tested
    with, to be tested once more; 0 leaves that out."""
    dropout: float = ranged(0.0, ge=0, lt=1)
    """Chance that a client of a round fails."""
    stragglers: float = ranged(0.0, ge=0, le=1)
    """Chance that a client of a round trains for fewer epochs (or steps) than it should."""
    byzantine: ByzantineConfig = field(default_factory=ByzantineConfig)

    def cohort_size(self, fraction: float) -> int:
        """Return how many clients are sampled, of those that are seen; at least one."""
        return max(1, round(fraction * (self.num - self.num_unseen)))

    @property
    def num_unseen(self) -> int:
        """Clients that take no part in training; one at least is left that does."""
        return min(round(self.unseen * self.num), self.num - 1)

    @property
    def cohort(self) -> int:
        """Clients that train in a round."""
        return self.cohort_size(self.fraction_train)
