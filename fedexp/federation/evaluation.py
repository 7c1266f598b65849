"""Server-side evaluation: one model, the whole test set and its named subsets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedexp.backends.ray_session import usable_cpus
from fedexp.config.schema import Config
from fedexp.data.federated import FederatedData
from fedexp.data.partition import test_subsets
from fedexp.models.networks import Weights, build_model, set_weights
from fedexp.training.loop import Evaluator, Predictions, limited_threads, pick_device

Scores = dict[str, dict[str, float]]
"""Subset -> metric -> value; metrics are ``accuracy`` (0 .. 1) and ``loss`` (nats)."""


ClientScores = dict[int, dict[str, float]]
"""Partition id -> metric -> value; a client without test images is absent."""


class ServerEvaluation:
    """Evaluate weights on the test set, which only the server holds."""

    def __init__(self, config: Config, data: FederatedData) -> None:
        self._data = data
        self._device = pick_device(config.backend)
        self._model = build_model(config.model, data.spec).to(self._device)
        self._state = self._model.state_dict()
        self._threads = config.backend.threads
        parallel = usable_cpus() if self._device.type == "cpu" else 1
        self._evaluator = Evaluator(data.test, data.spec, self._device, parallel)
        self._labels = data.test.labels
        self._num_classes = data.spec.num_classes
        masks = {
            name: np.isin(data.test.labels, labels)
            for name, labels in test_subsets(config.partition).items()
        }
        self._masks = {"all": np.ones(len(self._labels), dtype=bool), **masks}

    def scores(self, weights: Weights) -> Scores:
        """Return accuracy and loss on every subset."""
        predictions = self._predict(weights)
        correct = predictions.labels == self._labels
        return {
            name: {
                "accuracy": float(correct[mask].mean()),
                "loss": float(predictions.losses[mask].mean()),
            }
            for name, mask in self._masks.items()
        }

    def confusion(self, weights: Weights) -> npt.NDArray[np.int64]:
        """Return counts, shape (num_classes, num_classes): rows are true labels, columns predicted."""
        flat = self._labels * self._num_classes + self._predict(weights).labels
        counts = np.bincount(flat, minlength=self._num_classes**2)
        return counts.reshape(self._num_classes, self._num_classes)

    def client_scores(self, weights: Weights, clients: Sequence[int]) -> ClientScores:
        """Return accuracy and loss on the clients' own shares of the test images, as they see them."""
        shares = {client: self._data.client_test.client(client) for client in clients}
        shares = {client: share for client, share in shares.items() if len(share)}
        if not shares:
            return {}
        examples = self._data.clients_test.subset(np.concatenate(list(shares.values())))
        found = self._predict(weights, Evaluator(examples, self._data.spec, self._device))
        ends = np.cumsum([len(share) for share in shares.values()])[:-1]
        correct = np.split(found.labels == examples.labels, ends)
        losses = np.split(found.losses, ends)
        return {
            client: {"accuracy": float(right.mean()), "loss": float(loss.mean())}
            for client, right, loss in zip(shares, correct, losses, strict=True)
        }

    def _predict(self, weights: Weights, evaluator: Evaluator | None = None) -> Predictions:
        set_weights(self._state, weights)
        with limited_threads(self._threads):
            return (evaluator or self._evaluator).predict(self._model)
