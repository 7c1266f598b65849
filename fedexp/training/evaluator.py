"""The only evaluation loop."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedexp.data.examples import Examples
from fedexp.metrics import Predictions
from fedexp.models.base import Model
from fedexp.tasks import Task
from fedexp.training.blocked import forward_of
from fedexp.training.network import Prepare


class Evaluator:
    """Predictions of any number of models on the same examples, which it keeps prepared.

    Batches have a fixed size and each is computed on one thread, so that the result does not depend
    on how many of them run side by side.

    Args:
        examples: What is predicted; one at least.
        task: What a prediction is.
        prepare: From stored inputs to what the model takes.
        device: Where models lie.
        parallel: Batches that are computed side by side.
        probabilities: Whether predictions hold the probability of every label.
        at_once: Examples in a batch.
    """

    def __init__(
        self,
        examples: Examples,
        task: Task,
        prepare: Prepare,
        device: torch.device,
        parallel: int = 1,
        probabilities: bool = False,
        at_once: int = Model.tested_at_once,
    ) -> None:
        inputs = torch.from_numpy(examples.inputs).split(at_once)
        targets = torch.from_numpy(examples.targets).to(device).split(at_once)
        self._batches = [
            (prepare(batch.to(device)), y) for batch, y in zip(inputs, targets, strict=True)
        ]
        self._task = task
        self._targets, offsets = task.expected(examples.targets)
        self._texts: dict[str, Any] = {} if offsets is None else {"offsets": offsets}
        self._parallel, self._probabilities = parallel, probabilities

    def predict(self, model: nn.Module) -> Predictions:
        """Run the model over all examples; the model lies on this evaluator's device."""
        model.eval()
        return self.judge(forward_of(model))

    def judge(self, forward: Callable[[Tensor], Tensor]) -> Predictions:
        """Run a function from prepared inputs to outputs over all examples.

        Args:
            forward: Its outputs lie on this evaluator's device; called for several batches at a time
                where they are computed side by side.
        """

        def one(batch: tuple[Tensor, Tensor]) -> tuple[Any, ...]:
            with torch.inference_mode():
                outputs = forward(batch[0])
                found = self._task.judge(outputs, batch[1], probabilities=self._probabilities)
                return tuple(tensor.cpu().numpy() for tensor in found)

        if self._parallel > 1:
            with ThreadPoolExecutor(self._parallel) as pool:
                results = list(pool.map(one, self._batches))
        else:
            results = [one(batch) for batch in self._batches]
        found = (np.concatenate(part) for part in zip(*results, strict=True))
        return Predictions(self._targets, *found, **self._texts)
