"""What a client does in one round."""

from __future__ import annotations

from dataclasses import dataclass

from fedexp.core.options import one_of, ranged

FULL = "full"


@dataclass(frozen=True)
class TrainingConfig:
    """What a client does in one round.

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
