"""Server-side evaluation: one model, the whole test set and its named subsets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedexp.config.schema import Config
from fedexp.core.machine import usable_cpus
from fedexp.core.weights import Weights
from fedexp.data.examples import Examples
from fedexp.data.federated import FederatedData
from fedexp.federation.measuring import measure, measures, needs_probabilities
from fedexp.metrics import Predictions
from fedexp.training.device import limited_threads, pick_device
from fedexp.training.evaluator import Evaluator
from fedexp.training.network import build_network

Scores = dict[str, dict[str, float]]
"""Subset -> metric -> value."""

ClientScores = dict[int, dict[str, float]]
"""Partition id -> metric -> value; a client without test examples is absent."""


class ServerEvaluation:
    """Evaluate weights on the test set, which only the server holds.

    Attributes:
        initial: The weights that the model was built with.
        parameters: Names of what gradients move, in the model's order.
        buffers: Names of the model's entries that are no parameters.
        frozen: Names of the parameters that nobody trains.
    """

    def __init__(self, config: Config, data: FederatedData) -> None:
        self._data, self._dataset = data, config.dataset
        self._measures = measures(config.measured)
        self._device = pick_device(config.backend)
        spec, prepare = data.spec, config.dataset.prepare
        self._network = build_network(config.model, spec, config.seed, self._device, prepare)
        self.initial = self._network.weights()
        self.parameters = tuple(self._network.parameters)
        self.buffers, self.frozen = self._network.buffers, self._network.frozen
        self._threads = config.backend.threads
        parallel = usable_cpus() if self._device.type == "cpu" else 1
        self._evaluator = self._evaluator_of(data.test, parallel)
        targets = data.test.targets
        masks = {
            name: np.isin(targets, labels) for name, labels in config.partition.subsets().items()
        }
        self._masks = {"all": np.ones(len(targets), dtype=bool), **masks}

    def scores(self, weights: Weights) -> Scores:
        """Return the run's metrics on every subset that has test examples."""
        found = self._predict(weights, self._evaluator)
        return {
            name: measure(found.select(mask), self._measures)
            for name, mask in self._masks.items()
            if mask.any()
        }

    def confusion(self, weights: Weights) -> npt.NDArray[np.int64]:
        """Return counts, shape (num_classes, num_classes): rows are true labels, columns predicted."""
        size = self._data.spec.num_classes
        found = self._predict(weights, self._evaluator)
        counts = np.bincount(found.targets * size + found.labels, minlength=size**2)
        return counts.reshape(size, size)

    def client_scores(self, weights: Weights, clients: Sequence[int]) -> ClientScores:
        """Return metrics on the clients' own shares of the test examples, as they see them."""
        shares = {client: self._data.client_test.client(client) for client in clients}
        shares = {client: share for client, share in shares.items() if len(share)}
        if not shares:
            return {}
        examples = self._data.clients_test.subset(np.concatenate(list(shares.values())))
        found = self._predict(weights, self._evaluator_of(examples))
        ends = np.cumsum([len(share) for share in shares.values()])
        pieces = np.split(np.arange(len(examples)), ends[:-1])
        return {
            client: measure(found.select(piece), self._measures)
            for client, piece in zip(shares, pieces, strict=True)
        }

    def _evaluator_of(self, examples: Examples, parallel: int = 1) -> Evaluator:
        probabilities = needs_probabilities(self._measures)
        return Evaluator(examples, self._dataset.prepare, self._device, parallel, probabilities)

    def _predict(self, weights: Weights, evaluator: Evaluator) -> Predictions:
        self._network.load(weights)
        with limited_threads(self._threads):
            return evaluator.predict(self._network.module)
