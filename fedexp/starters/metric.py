"""A metric of my own: how sure the model is when it is wrong.

    python mine.py -m 'metrics=[accuracy,mine]' strategy=fedavg,local_only

Change ``of``; it gets the predictions for some examples at a time.
"""

import numpy as np

from fedexp import Metric, Predictions, main, metrics


@metrics.register
class Mine(Metric):
    """The mean probability of the predicted label where it is wrong, 0 to 1."""

    name = "mine"
    higher_is_better = False
    needs_probabilities = True

    def of(self, found: Predictions) -> float:
        """Return the number for one example at least."""
        assert found.probabilities is not None
        wrong = found.labels != found.targets
        sure = found.probabilities[np.arange(len(found)), found.labels]
        return float(sure[wrong].mean()) if wrong.any() else 0.0


if __name__ == "__main__":
    main()
