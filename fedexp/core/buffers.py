"""Keep a model's buffers away from a server optimizer.

A strategy that treats every entry of a state dict as a weight makes running variances negative (Adam) or
lets step counters run away (momentum). It is shown the parameters only, and the buffers are averaged as
FedAvg does (Reddi et al., arXiv 2003.00295, have none).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fedexp.core.roles import Order, Server, Update, Updates
from fedexp.core.weights import Weights


class BuffersApart(Server):
    """A strategy for parameters, FedAvg for buffers.

    Args:
        inner: The server that parameters go through.
        buffers: Names of the entries that are no parameters.
    """

    def __init__(self, inner: Server, buffers: Collection[str]) -> None:
        self.inner, self._buffers = inner, frozenset(buffers)

    def instruct(self, t: int, model: Weights, cohort: Sequence[int]) -> dict[int, Order]:
        """Let the inner strategy see the parameters; clients get everything."""
        parameters = self._part(model, buffers=False)
        orders = self.inner.instruct(t, parameters, cohort)
        return self._complete(model, parameters, orders)

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        """Combine parameters by the inner strategy, buffers by their mean weighted by examples."""
        moved = self.inner.combine(
            t, self._part(model, buffers=False), self._updates(updates, buffers=False)
        )
        both = {**moved, **self._updates(updates, buffers=True).mean()}
        return {name: both[name] for name in model}

    def problem(self, update: Update) -> str | None:
        """Ask the inner strategy, which sees the parameters."""
        return self.inner.problem(self._updates(Updates([update]), buffers=False)[0])

    def memory(self, count: int, model: Weights) -> int:
        """Ask the inner strategy."""
        return self.inner.memory(count, self._part(model, buffers=False))

    def models(self, model: Weights) -> dict[int | None, Weights]:
        """Ask the inner strategy; a client's own model has the global one's buffers."""
        parameters = self._part(model, buffers=False)
        found = self.inner.models(parameters).items()
        return {owner: self._whole(model, parameters, own) for owner, own in found}

    def before_tests(self, model: Weights, clients: Sequence[int]) -> dict[int, Order]:
        """Ask the inner strategy; clients get everything."""
        parameters = self._part(model, buffers=False)
        orders = self.inner.before_tests(parameters, clients)
        return self._complete(model, parameters, orders)

    def loss(self, updates: Updates) -> float | None:
        """Ask the inner strategy."""
        return self.inner.loss(updates)

    def state(self) -> dict[str, Any]:
        """Return the inner strategy's."""
        return self.inner.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Give the inner strategy its state back."""
        self.inner.restore(state)

    def _complete(
        self, model: Weights, parameters: Weights, orders: Mapping[int, Order]
    ) -> dict[int, Order]:
        whole: dict[int, Order] = {}
        for order in orders.values():
            if id(order) not in whole:
                sent = self._whole(model, parameters, order.weights)
                whole[id(order)] = dataclasses.replace(order, weights=sent)
        return {client: whole[id(order)] for client, order in orders.items()}

    @staticmethod
    def _whole(model: Weights, parameters: Weights, own: Weights) -> Weights:
        return model if own is parameters else {**model, **own}

    def _part(self, weights: Weights, *, buffers: bool) -> Weights:
        return {name: a for name, a in weights.items() if (name in self._buffers) == buffers}

    def _updates(self, updates: Updates, *, buffers: bool) -> Updates:
        first = updates[0].weights
        names = frozenset(name for name in first if (name in self._buffers) == buffers)
        return Updates([update.part(names) for update in updates])
