"""Clients: how many, how they behave, and how they train."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedexp.core.options import one_of, ranged

FULL = "full"


@dataclass  # not frozen: OmegaConf would refuse overrides of a frozen dataclass two levels down
class ByzantineConfig:
    """Faulty clients: a fixed share of them, whatever round it is.

    ``label_flip`` trains on label ``num_classes - 1 - y``; ``sign_flip`` sends the global weights less
    ``scale`` times its update; ``gaussian`` sends them plus noise of standard deviation ``scale``.
    """

    fraction: float = ranged(0.0, ge=0, lt=1)
    kind: str = one_of("label_flip", "label_flip", "sign_flip", "gaussian")
    scale: float = ranged(1.0, gt=0)


@dataclass(frozen=True)
class ClientsConfig:
    """How many clients there are, which share takes part in a round, and what goes wrong with them.

    ``dropout`` is the chance that a sampled client fails; ``stragglers`` the chance that one trains for
    fewer epochs than told.
    """

    num: int = ranged(3, ge=1)
    fraction_train: float = ranged(1.0, gt=0, le=1)
    fraction_evaluate: float = ranged(0.0, ge=0, le=1)
    dropout: float = ranged(0.0, ge=0, lt=1)
    stragglers: float = ranged(0.0, ge=0, le=1)
    byzantine: ByzantineConfig = field(default_factory=ByzantineConfig)

    def cohort_size(self, fraction: float) -> int:
        """Return how many clients are sampled; at least one."""
        return max(1, round(fraction * self.num))


@dataclass(frozen=True)
class TrainingConfig:
    """What a client does between two messages of the server.

    ``local_steps``, when set, takes the place of ``local_epochs``; ``batch_size: full`` is one step an
    epoch. ``momentum`` is Adam's first beta where the optimizer is ``adam`` or ``adamw``. The learning
    rate of round ``t`` is ``learning_rate * learning_rate_decay ** (t - 1)``. ``amp`` computes in
    bfloat16, on a GPU only.
    """

    local_epochs: int = ranged(10, ge=1)
    local_steps: int | None = ranged(None, ge=1)
    batch_size: int | str = ranged(64, ge=1)
    optimizer: str = one_of("sgd", "sgd", "adam", "adamw")
    learning_rate: float = ranged(0.01, gt=0)
    learning_rate_decay: float = ranged(1.0, gt=0, le=1)
    momentum: float = ranged(0.9, ge=0, lt=1)
    weight_decay: float = ranged(0.0, ge=0)
    max_grad_norm: float | None = ranged(None, gt=0)
    amp: bool = False

    def rate(self, server_round: int) -> float:
        """Return the learning rate of a round, which counts from 1."""
        return self.learning_rate * self.learning_rate_decay ** (server_round - 1)
