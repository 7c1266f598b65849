"""The trainer of models in other frameworks: what they learn from and say are NumPy arrays.

Batches are those that torch would get, in the same order, prepared and varied by the data set's page; and
what a model says is judged by the same code. So a framework has steps and outputs to itself, and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedexp.config.schema import Config
from fedexp.core.layers import Layers
from fedexp.core.seeding import derive_rng, derive_seed
from fedexp.core.weights import Weights
from fedexp.data.examples import Examples
from fedexp.frameworks.base import Batch, Learner, Recipe
from fedexp.metrics import Predictions
from fedexp.training.device import limited_threads
from fedexp.training.evaluator import Evaluator
from fedexp.training.loop import Batches, Work, batch_size
from fedexp.training.trainer import Predictor, Trainer

CPU = torch.device("cpu")
SEEDS = 2**31
"""Seeds of other frameworks are smaller: some take 32 bits, with a sign."""


class ArrayTrainer(Trainer):
    """Trains and runs a learner."""

    def __init__(self, config: Config, learner: Learner) -> None:
        self._config, self._learner = config, learner
        initial = self.initial()
        self._like = {name: (array.shape, array.dtype) for name, array in initial.items()}
        self.buffers, self.frozen = learner.buffers, learner.frozen
        still = self.buffers | self.frozen
        self.parameters = tuple(name for name in initial if name not in still)
        self.layers = _layers(tuple(initial), self.parameters)
        self._chance = derive_rng(config.seed, "model")

    def initial(self) -> Weights:
        """Return what the learner draws."""
        return self._learner.initial(derive_seed(self._config.seed, "init") % SEEDS)

    def train(
        self, start: Weights, examples: Examples, work: Work, order: torch.Generator
    ) -> tuple[Weights, float]:
        """Let the learner take a step on every batch; see :class:`Trainer`."""
        config = self._config
        self._check(start, "weights for")
        asked = {
            name: getattr(work, name) for name in ("only", "pull", "correction", "loss", "rule")
        }
        lacking = [name for name in sorted(config.model.cannot) if asked.get(name)]
        if lacking:
            raise ValueError(
                f"job.train({lacking[0]}=...): model={config.model.name} cannot do it "
                f"({config.model.framework})"
            )
        size = batch_size(config.training, len(examples))
        batches = Batches(examples, config.dataset, size, order, CPU)
        sizes: list[int] = []
        trained, losses = self._learner.fit(
            start, self._steps(batches, work.steps, sizes), self._recipe(start, work)
        )
        self._check(trained, "fit() returned weights")
        return trained, _mean(losses, sizes, work.steps)

    def predictor(
        self, examples: Examples, *, parallel: int = 1, probabilities: bool = False
    ) -> Predictor:
        """Keep examples prepared, and judge what the learner says; see :class:`Trainer`."""
        task, prepare = self._config.task, self._config.dataset.prepare
        evaluator = Evaluator(examples, task, prepare, CPU, probabilities=probabilities)

        def predict(weights: Weights) -> Predictions:
            self._check(weights, "weights for")
            return evaluator.judge(lambda batch: torch.tensor(self._say(weights, batch)))

        return predict

    def outputs(self, weights: Weights, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Ask the learner; see :class:`Trainer`."""
        self._check(weights, "weights for")
        return self._say(weights, self._config.dataset.prepare(torch.from_numpy(inputs)))

    @contextmanager
    def turn(self, server_round: int, client: int) -> Iterator[None]:
        """Key the seeds that the learner gets on seed, round and client."""
        self._chance = derive_rng(self._config.seed, "model", server_round, client)
        with limited_threads(self._config.backend.threads):
            yield

    def _say(self, weights: Weights, batch: Tensor) -> npt.NDArray[Any]:
        return np.asarray(self._learner.outputs(weights, batch.numpy()))

    def _steps(self, batches: Batches, steps: int, sizes: list[int]) -> Iterator[Batch]:
        """Yield a batch a step; ``sizes`` comes to hold those of the last epoch."""
        counted, taken = self._config.task.counted, 0
        while taken < steps:
            sizes.clear()
            for inputs, targets in batches.epoch():
                sizes.append(counted(targets))
                yield inputs.numpy(), targets.numpy()
                taken += 1
                if taken == steps:
                    break

    def _recipe(self, start: Weights, work: Work) -> Recipe:
        training = self._config.training
        moving = [n for n in self.parameters if work.only is None or n in work.only]
        toward = start if work.toward is None else work.toward
        correction = work.correction or {}
        return Recipe(
            training.optimizer,
            work.learning_rate,
            training.momentum,
            training.weight_decay,
            training.max_grad_norm,
            tuple(moving),
            work.pull,
            {name: toward[name] for name in moving} if work.pull else {},
            {name: correction[name] for name in moving} if correction else {},
            int(self._chance.integers(SEEDS)),
        )

    def _check(self, weights: Weights, what: str) -> None:
        if weights.keys() != self._like.keys():
            raise ValueError(f"{what} {list(weights)} do not fit a model of {list(self._like)}")
        for name, (shape, dtype) in self._like.items():
            array = weights[name]
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"{what} {name}: {array.dtype}{array.shape}, the model's are {dtype}{shape}"
                )


def _mean(losses: Sequence[float], sizes: Sequence[int], steps: int) -> float:
    """Return the mean loss of the last epoch's predictions.

    Raises:
        ValueError: If there is not a loss for every step.
    """
    if len(losses) != steps:
        raise ValueError(f"fit() returned {len(losses)} losses for {steps} batches")
    last = losses[-len(sizes) :]
    total = sum(float(loss) * size for loss, size in zip(last, sizes, strict=True))
    return total / sum(sizes)


def _layers(names: tuple[str, ...], parameters: tuple[str, ...]) -> Layers:
    """Tell layers apart by what entries' names have in common before their last dot."""
    last, dot, _ = parameters[-1].rpartition(".")
    head = [name for name in names if dot and name.rpartition(".")[0] == last]
    return Layers(names, parameters, frozenset(head))
