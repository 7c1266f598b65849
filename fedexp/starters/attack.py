"""An attack of my own: faulty clients send the opposite of what they learned.

    python mine.py clients.byzantine.kind=mine clients.byzantine.fraction=0.4 clients.num=5 partition=iid

Change ``weights`` to change what faulty clients send.
"""

from dataclasses import dataclass

import numpy as np

from fedexp import Attack, Weights, attacks, main


@attacks.register
@dataclass(frozen=True)
class Mine(Attack):
    """What faulty clients do; ``scale`` is ``clients.byzantine.scale``."""

    name: str = "mine"

    def weights(self, before: Weights, after: Weights, rng: np.random.Generator) -> Weights:
        """Return what a faulty client sends in place of what it trained."""
        return {
            name: (array - self.scale * (after[name] - array)).astype(array.dtype)
            for name, array in before.items()
        }


if __name__ == "__main__":
    main()
