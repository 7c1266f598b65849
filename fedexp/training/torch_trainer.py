"""The trainer of models that are torch modules: the fast one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedexp.config.schema import Config
from fedexp.core.garbage import keep_for_next_step
from fedexp.core.weights import Weights
from fedexp.data.examples import Examples, Spec
from fedexp.metrics import Predictions
from fedexp.training.blocked import forward_of
from fedexp.training.device import (
    clients_that_fit,
    gpu_left,
    limited_threads,
    peak_memory,
    pick_device,
)
from fedexp.training.evaluator import Evaluator
from fedexp.training.hooks import taken_by_head
from fedexp.training.loop import Work, train
from fedexp.training.network import Network, build_network, keyed_chance
from fedexp.training.stacked import AloneError, Share, ensure_stackable, train_stacked
from fedexp.training.trainer import Predictor, Trainer


class TorchTrainer(Trainer):
    """Trains and runs a torch module.

    Attributes:
        network: The module, and the memory that weights are copied into.
        device: Where it lies.
    """

    def __init__(self, config: Config, spec: Spec) -> None:
        self._config, self._spec = config, spec
        self.device = pick_device(config.backend)
        self.network = self._build()
        self.parameters = tuple(self.network.parameters)
        self.buffers, self.frozen = self.network.buffers, self.network.frozen
        self.layers = self.network.layers
        self._filled = False
        self._at_once: int | None = None
        self._alone_because: str | None = None
        self._is_tried = False

    def initial(self) -> Weights:
        """Return the weights that the network was built with."""
        return (self._build() if self._filled else self.network).weights()

    def train(
        self, start: Weights, examples: Examples, work: Work, order: torch.Generator
    ) -> tuple[Weights, float]:
        """Fill the network and take SGD steps; see :class:`Trainer`."""
        network, config = self._load(start), self._config
        keep_for_next_step()
        moving = network.parameters
        if work.only is not None:
            moving = {name: moving[name] for name in moving if name in work.only}
        with self._sizing():
            loss = train(
                network, moving, examples, config.dataset, config.training, work, order, self.device
            )
        return network.weights(), loss

    @property
    def at_once(self) -> int | None:
        """One on a CPU; on a GPU as many as fit, by what the first client took."""
        return 1 if self.device.type == "cpu" else self._at_once

    def train_together(self, shares: Sequence[Share]) -> list[tuple[Weights, float]]:
        """Stack the clients, if the network bears it; see :class:`Trainer`."""
        # A network computes one row otherwise than several, so one client has itself for company.
        rows = shares if len(shares) > 1 else [*shares, shares[0].twin()]
        what = self.network, rows, self._config.dataset, self._config.training, self.device
        self._filled = True
        if not self._is_tried:
            self._is_tried = True
            try:
                ensure_stackable(*what)
            except AloneError as error:
                self._alone_because = str(error)
        if self._alone_because is not None:
            raise AloneError(self._alone_because)
        try:
            return train_stacked(*what)[: len(shares)]
        except torch.OutOfMemoryError:
            self._at_once = max(1, len(shares) // 2)
            torch.cuda.empty_cache()
            raise AloneError(
                f"{len(shares)} of them at once do not fit into the GPU's memory"
            ) from None

    @contextmanager
    def _sizing(self) -> Iterator[None]:
        """Measure on the first client that trains on a GPU how many would fit."""
        if self.device.type == "cpu" or self._at_once is not None:
            yield
            return
        with peak_memory(self.device) as taken:
            yield
        own = sum(array.nbytes for array in self.network.weights().values())
        free = gpu_left(self.device, self._config.backend.gpu_share)
        self._at_once = clients_that_fit(free, taken[0] + own)

    def predictor(
        self, examples: Examples, *, parallel: int = 1, probabilities: bool = False
    ) -> Predictor:
        """Keep examples prepared on the device; see :class:`Trainer`."""
        task, prepare = self._config.task, self._config.dataset.prepare
        at_once = self._config.model.tested_at_once
        evaluator = Evaluator(
            examples, task, prepare, self.device, parallel, probabilities, at_once
        )

        def predict(weights: Weights) -> Predictions:
            return evaluator.predict(self._load(weights).module)

        return predict

    def outputs(self, weights: Weights, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Run the network over inputs in one batch; see :class:`Trainer`."""
        module = self._load(weights).module.eval()
        with torch.inference_mode():
            batch = self._config.dataset.prepare(torch.from_numpy(inputs).to(self.device))
            found: npt.NDArray[Any] = module(batch).cpu().numpy()
        return found

    def features(self, weights: Weights, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Run the network over inputs in batches of a test's size; see :class:`Trainer`."""
        network, found = self._load(weights), []
        module, prepare = network.module.eval(), self._config.dataset.prepare
        with torch.inference_mode(), taken_by_head(network) as taken:
            forward = forward_of(module)
            for batch in torch.from_numpy(inputs).split(self._config.model.tested_at_once):
                forward(prepare(batch.to(self.device)))
                found.append(taken[-1].float().cpu().numpy())
                taken.clear()
        return np.concatenate(found)

    def width(self, weights: Weights) -> int | None:
        """Look at what the last layer takes of two inputs of zeros; see :class:`Trainer`."""
        shape = self.features(weights, np.zeros((2, *self._spec.shape), np.float32)).shape
        return shape[1] if len(shape) == 2 else None

    @contextmanager
    def turn(self, server_round: int, client: int) -> Iterator[None]:
        """Key torch's global generator on seed, round and client."""
        config = self._config
        with (
            limited_threads(config.backend.threads),
            keyed_chance(config.seed, server_round, client, self.device),
        ):
            yield

    def _build(self) -> Network:
        config = self._config
        return build_network(
            config.model, self._spec, config.seed, self.device, config.dataset.prepare
        )

    def _load(self, weights: Weights) -> Network:
        self._filled = True
        self.network.load(weights)
        return self.network
