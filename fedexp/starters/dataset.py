"""A dataset of my own: two clouds of points with 14 features.

    python mine.py -m dataset=mine partition=iid model=logistic strategy=fedavg,local_only

Change ``load`` to read your own; ``facts`` says what it returns.
"""

from dataclasses import dataclass

import numpy as np

from fedexp import Dataset, Examples, Spec, datasets, main, ranged


@datasets.register
@dataclass(frozen=True)
class Mine(Dataset):
    """What it holds, where it comes from, and under which licence."""

    kind = "vector"
    facts = Spec(shape=(14,), classes=("no", "yes"), num_train=600, num_test=200)

    name: str = "mine"
    distance: float = ranged(2.0, gt=0)
    """Between the labels' centres, in standard deviations."""

    def load(self) -> tuple[Examples, Examples]:
        """Return training and test examples: inputs, shape (N, 14), and labels 0, 1, ..."""
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 2, 800)
        inputs = rng.standard_normal((800, 14)).astype(np.float32)
        inputs[:, 0] += self.distance * labels
        return Examples(inputs[:600], labels[:600]), Examples(inputs[600:], labels[600:])


if __name__ == "__main__":
    main()
