"""Server-side evaluation: the whole test set and its named subsets, and what is held out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fedexp.config.schema import Config
from fedexp.core.garbage import give_back
from fedexp.core.machine import usable_cpus
from fedexp.core.weights import Weights
from fedexp.data.assignment import Holders
from fedexp.data.examples import Examples, Spec
from fedexp.data.federated import FederatedData
from fedexp.federation.measuring import measure, measures, needs_probabilities
from fedexp.metrics import Predictions
from fedexp.training.building import build_trainer
from fedexp.training.device import limited_threads, pick_device
from fedexp.training.trainer import Predictor

Scores = dict[str, dict[str, float]]
"""Subset -> metric -> value."""

VAL, CLIENT_VAL = "val", "client_val"
"""What models are validated on: the examples that the server holds out, and those that clients do."""

Models = Mapping[int | None, Weights]
"""None -> the global model's weights, or partition id -> a client's own."""

ClientScores = dict[int, dict[str, float]]
"""Partition id -> metric -> value; a client without test examples is absent."""


class BuiltModel:
    """What the server knows of a model before anybody trains it.

    Attributes:
        initial: The weights that the model was built with.
        parameters: Names of what gradients move, in the model's order.
        buffers: Names of the model's entries that are no parameters.
        largest_loss: The loss from which on a model has diverged.
        frozen: Names of the parameters that nobody trains.
        layers: The model's entries by layer.
        listed: The clients that are tested one by one.
    """

    largest_loss: float

    def __init__(self, config: Config, spec: Spec, listed: Sequence[int]) -> None:
        self.listed = listed
        self._trainer = build_trainer(config, spec)
        self.initial, self.parameters = self._trainer.initial(), self._trainer.parameters
        self.buffers, self.frozen = self._trainer.buffers, self._trainer.frozen
        self.layers = self._trainer.layers

    def width(self) -> int | None:
        """Return how many numbers the last layer takes of an example; None where they are no vector."""
        return self._trainer.width(self.initial)


class NodeEvaluation(BuiltModel):
    """The evaluation of a run whose test examples lie on the nodes: they test, and tell the server."""

    def __init__(self, config: Config, spec: Spec, mean_square: float) -> None:
        super().__init__(config, spec, range(config.clients.num))
        self.largest_loss = config.task.largest_loss(np.sqrt(np.array([mean_square])))


class ServerEvaluation(BuiltModel):
    """Evaluate weights on the test set, which only the server holds."""

    def __init__(self, config: Config, data: FederatedData) -> None:
        super().__init__(config, data.spec, data.partition.listed)
        self._data = data
        self._measures = measures(config.measured)
        self._threads = config.backend.threads
        parallel = usable_cpus() if pick_device(config.backend).type == "cpu" else 1
        self._parallel = parallel
        self._predictor = self._predictor_of(data.test, parallel)
        targets = data.test.targets
        # Where held-out training examples decide, test data have no say in what has diverged either.
        judges = data.train.targets if config.dataset.validation else targets
        self.largest_loss = config.task.largest_loss(judges)
        masks = {
            name: np.isin(targets, labels) for name, labels in config.partition.subsets().items()
        }
        self._masks = {"all": np.ones(len(targets), dtype=bool), **masks}

    def scores(self, weights: Weights) -> Scores:
        """Return the run's metrics on every subset that has test examples."""
        found = self._predict(weights, self._predictor)
        return {
            name: measure(found.select(mask), self._measures)
            for name, mask in self._masks.items()
            if mask.any()
        }

    def confusion(self, weights: Weights) -> npt.NDArray[np.int64]:
        """Return counts, shape (num_classes, num_classes): rows are true labels, columns predicted."""
        size = self._data.spec.num_classes
        found = self._predict(weights, self._predictor)
        counts = np.bincount(found.targets * size + found.labels, minlength=size**2)
        return counts.reshape(size, size)

    def client_scores(self, weights: Weights, clients: Sequence[int]) -> ClientScores:
        """Return metrics on the clients' own shares of the test examples, as they see them."""
        data = self._data
        return self._scores_by_share(weights, clients, data.client_test, data.clients_test)

    def validation(self, models: Models) -> dict[int | None, Scores]:
        """Return the run's metrics on what is held out, model by model.

        Args:
            models: What is validated.

        Returns:
            Owner -> ``val`` (what the server holds out) and ``client_val`` (what all clients hold out
            together, or what the client does whose model it is) -> metric -> value; what there are no
            examples of is absent.
        """
        found: dict[int | None, Scores] = {owner: {} for owner in models}
        groups: dict[int, list[int | None]] = defaultdict(list)
        for owner, weights in models.items():  # clients that share a model share its scores
            groups[id(weights)].append(owner)
        for owners in groups.values():
            weights = models[owners[0]]
            if self._server_val is not None:
                scores = measure(self._predict(weights, self._server_val), self._measures)
                for owner in owners:
                    found[owner][VAL] = scores
            own = self.client_validation(weights, [k for k in owners if k is not None])
            for client, numbers in own.items():
                found[client][CLIENT_VAL] = numbers
            if None in owners and self._clients_val is not None:
                everybodys = self._predict(weights, self._clients_val)
                found[None][CLIENT_VAL] = measure(everybodys, self._measures)
        return found

    def client_validation(self, weights: Weights, clients: Sequence[int]) -> ClientScores:
        """Return metrics on what clients hold out themselves."""
        data = self._data
        if data.client_val is None:
            return {}
        return self._scores_by_share(weights, clients, data.client_val, data.train)

    @cached_property
    def _server_val(self) -> Predictor | None:
        chosen = self._data.server_val
        if not len(chosen):
            return None
        return self._predictor_of(self._data.train.subset(chosen), self._parallel)

    @cached_property
    def _clients_val(self) -> Predictor | None:
        held = self._data.client_val
        if held is None:
            return None
        return self._predictor_of(self._data.train.subset(held.indices), self._parallel)

    def _scores_by_share(
        self, weights: Weights, clients: Sequence[int], held: Holders, of: Examples
    ) -> ClientScores:
        shares = {client: held.client(client) for client in clients}
        shares = {client: share for client, share in shares.items() if len(share)}
        if not shares:
            return {}
        examples = of.subset(np.concatenate(list(shares.values())))
        found = self._predict(weights, self._predictor_of(examples))
        ends = np.cumsum([len(share) for share in shares.values()])
        pieces = np.split(np.arange(len(examples)), ends[:-1])
        return {
            client: measure(found.select(piece), self._measures)
            for client, piece in zip(shares, pieces, strict=True)
        }

    def _predictor_of(self, examples: Examples, parallel: int = 1) -> Predictor:
        probabilities = needs_probabilities(self._measures)
        # Preparing is short work, and other runs may be at work on the other CPUs.
        with limited_threads(self._threads):
            return self._trainer.predictor(examples, parallel=parallel, probabilities=probabilities)

    def _predict(self, weights: Weights, predict: Predictor) -> Predictions:
        with limited_threads(self._threads):
            found = predict(weights)
        give_back()
        return found
