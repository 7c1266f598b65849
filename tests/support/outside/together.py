"""An attack: faulty clients agree to send the global model, moved by a constant."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from fedexp import Attack, Updates, Weights, attacks, main, ranged


@attacks.register
@dataclass(frozen=True)
class Together(Attack):
    name: str = "together"
    shift: float = ranged(1.0, gt=0)

    def collude(
        self, model: Weights, updates: Updates, faulty: Collection[int], rng: np.random.Generator
    ) -> dict[int, Weights]:
        moved = {k: (w + self.scale * self.shift).astype(w.dtype) for k, w in model.items()}
        return dict.fromkeys(faulty, moved)


if __name__ == "__main__":
    main()
