"""A dataset of 14-feature vectors; what is known of them is measured, not stated."""

from dataclasses import dataclass

import numpy as np

from fedexp import Dataset, Examples, datasets, main, ranged


@datasets.register
@dataclass(frozen=True)
class Vectors(Dataset):
    name: str = "vectors"
    distance: float = ranged(3.0, gt=0)

    def load(self) -> tuple[Examples, Examples]:
        rng = np.random.default_rng(0)
        labels = np.arange(240) % 3
        inputs = rng.standard_normal((240, 14)).astype(np.float32)
        inputs[np.arange(240), labels] += self.distance
        return Examples(inputs[:180], labels[:180]), Examples(inputs[180:], labels[180:])


if __name__ == "__main__":
    main()
