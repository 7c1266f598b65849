"""A metric: the share that is right of the label that the model knows least."""

import numpy as np

from fedexp import Metric, Predictions, main, metrics


@metrics.register
class Weakest(Metric):
    name = "weakest"

    def of(self, found: Predictions) -> float:
        right = found.labels == found.targets
        return float(min(right[found.targets == k].mean() for k in np.unique(found.targets)))


if __name__ == "__main__":
    main()
