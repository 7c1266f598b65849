"""A model of my own: two layers with dropout between them.

    python mine.py -m model=mine strategy=fedavg,local_only

Change ``build``; docs/extend.md says what a network may do.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp import Model, Spec, main, models, ranged

if TYPE_CHECKING:
    from torch import nn


@models.register
@dataclass(frozen=True)
class Mine(Model):
    """What it is, and the paper it comes from."""

    name: str = "mine"
    dropout: float = ranged(0.2, ge=0, lt=1)
    """Share of hidden units that are left out of a step."""

    def build(self, spec: Spec) -> "nn.Module":
        """Return the network: prepared inputs, shape (n, *spec.shape), to logits."""
        from torch import nn

        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(spec.shape), 64),
            nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.Linear(64, spec.num_classes),
        )


if __name__ == "__main__":
    main()
