"""What a client does in one round."""

from __future__ import annotations

from dataclasses import dataclass

from fedexp.core.options import Span, one_of, ranged

FULL = "full"


@dataclass(frozen=True)
class TrainingConfig:
    """What a client does in one round.

    The learning rate of round ``t`` is ``learning_rate * learning_rate_decay ** (t - 1)``.
    """

    local_epochs: int = ranged(10, ge=1)
    """Passes over its own examples that a client makes in a round."""
    local_steps: int | None = ranged(None, ge=1)
    """SGD steps of a client in a round, in place of local_epochs; null counts epochs."""
    batch_size: int | str = ranged(64, ge=1)
    """Examples of a step; full takes all of a client's, one step an epoch."""
    optimizer: str = one_of("sgd", "sgd", "adam", "adamw")
    """What clients train with."""
    learning_rate: float = ranged(0.01, gt=0, tuned=Span(0.003, 0.3, log=True))
    """Step size in round 1."""
    learning_rate_decay: float = ranged(1.0, gt=0, le=1)
    """Factor from each round's step size to the next one's."""
    momentum: float = ranged(0.9, ge=0, lt=1)
    """SGD's momentum; Adam's first beta where the optimizer is adam or adamw."""
    weight_decay: float = ranged(0.0, ge=0)
    """Factor of the L2 penalty; of adamw, of the decoupled decay."""
    max_grad_norm: float | None = ranged(None, gt=0)
    """L2 norm to which a step's gradient is cut down; null leaves it as it is."""
    amp: bool = False
    """Compute in bfloat16, on a GPU only."""

    def rate(self, server_round: int) -> float:
        """Return the learning rate of a round, which counts from 1."""
        return self.learning_rate * self.learning_rate_decay ** (server_round - 1)
