"""Clients of equal work are trained together, before they are called one by one.

What a client asks to be trained is known once its strategy's client has run up to its first
``job.train``. So that much is run ahead, for several clients; what they ask for is done at once; and when
they are called in earnest, each finds its first training done. Whoever asks for something else, or fails
on the way, is trained alone when it is called, as if nothing had been done ahead.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

from fedexp.core.replies import told
from fedexp.core.roles import Order, State
from fedexp.core.weights import Weights
from fedexp.federation.client import ClientNode
from fedexp.federation.faults import steps_of
from fedexp.federation.job import Ahead, ClientJob
from fedexp.training.device import limited_threads, pick_device
from fedexp.training.loop import Work
from fedexp.training.stacked import AloneError, Share, batch_sizes

log = logging.getLogger("fedexp")
Item = TypeVar("Item")


class Ask(NamedTuple):
    """What a client is asked to do: the arguments of :meth:`ClientNode.train`."""

    client: int
    server_round: int
    order: Order
    state: State


class Together:
    """Trains the clients of a process together, as many at once as there may be.

    Args:
        node: What clients do.
    """

    def __init__(self, node: ClientNode) -> None:
        self._node = node
        self._told: set[str] = set()

    def stacks(
        self, items: Sequence[Item], asked: Callable[[Item], tuple[int, int] | None]
    ) -> Iterator[list[Item]]:
        """Yield items in lists whose clients seem to have equal work, or are one.

        Args:
            items: One per client.
            asked: Returns an item's client and round; None for one that stands alone.
        """
        most, rest = self._most(), list(items)
        if most is None:  # a GPU; the first client shows what one takes
            yield [rest.pop(0)]
            most = self._most() or 1
            log.info("backend.stack: up to %d clients are trained together", most)
        yield from stacked(rest, lambda item: self._load(asked(item)), most)

    def prepare(self, asks: Sequence[Ask]) -> None:
        """Do ahead what can be done together of what clients are about to be called for."""
        node, alike = self._node, dict[Hashable, list[tuple[Ask, Share]]]()
        node.ahead.clear()
        for ask in asks:
            share = self._share(ask)
            kind = None if share is None else share.kind(node.config.training)
            if share is not None and kind is not None:
                alike.setdefault(kind, []).append((ask, share))
        for pairs in alike.values():
            for (ask, share), (trained, loss) in zip(pairs, self._trained(pairs), strict=False):
                node.ahead[ask.client] = Ahead(ask.server_round, share, trained, loss)

    def _trained(self, pairs: Sequence[tuple[Ask, Share]]) -> list[tuple[Weights, float]]:
        """Return what clients get by their training; nothing where each must be trained alone."""
        try:
            with limited_threads(self._node.config.backend.threads):
                return self._node.trainer.train_together([share for _, share in pairs])
        except AloneError as error:
            self._say(str(error))
        except (
            Exception
        ) as error:  # one client's fault is its own: all find out when they are called
            self._say(told(error))
        return []

    def _say(self, why: str) -> None:
        if why not in self._told:
            self._told.add(why)
            asked = self._node.config.backend.stacked is not None
            level = logging.WARNING if asked else logging.INFO
            log.log(level, "backend.stack: clients are trained one by one: %s", why)

    def _share(self, ask: Ask) -> Share | None:
        """Return the first training that a client asks for; None where there is none to do ahead."""
        try:
            job = self._node.job(_First, ask.client, ask.server_round, ask.order, dict(ask.state))
            self._node.run(job)
        except _AskedError as asked:
            return asked.share
        except Exception:  # it fails again when it is called, and is answered for then
            return None
        return None

    def _load(self, asked: tuple[int, int] | None) -> Hashable | None:
        if asked is None:
            return None
        return load(self._node, *asked)

    def _most(self) -> int | None:
        config = self._node.config
        if config.backend.stacked is not None:
            return config.backend.stacked
        if config.model.framework != "PyTorch" or pick_device(config.backend).type == "cpu":
            return 1
        return self._node.trainer.at_once


def load(node: ClientNode, client: int, server_round: int) -> Hashable | None:
    """Return what is equal for clients that take as many steps on batches of the same sizes.

    None is for one that has nothing to train on.
    """
    config, num = node.config, node.data.partition.size(client)
    if not num:
        return None
    return batch_sizes(config.training, num, steps_of(config, server_round, client, num))


def stacked(
    items: Sequence[Item], load_of: Callable[[Item], Hashable | None], most: int
) -> list[list[Item]]:
    """Return items in lists of equal load: as few and as even as can be, in order of their first.

    Nobody stays alone who has its like, because a network computes one row otherwise than several: so two
    of three stay together with the third where ``most`` is 2.

    Args:
        items: To be put together.
        load_of: What is equal for those that may be; None stands alone.
        most: The length of a list.
    """
    if most == 1:
        return [[item] for item in items]
    alike: dict[Any, list[Item]] = {}
    for item in items:
        key = load_of(item)
        alike.setdefault((object(),) if key is None else key, []).append(item)
    found = []
    for group in alike.values():
        count = max(1, min(math.ceil(len(group) / most), len(group) // 2))
        edges = [len(group) * k // count for k in range(count + 1)]
        found += [group[a:b] for a, b in itertools.pairwise(edges)]
    return found


class _AskedError(BaseException):
    """A client has asked for its first training; no ``Exception``, lest the client catch it."""

    def __init__(self, share: Share) -> None:
        super().__init__()
        self.share = share


class _First(ClientJob):
    """A job that ends where the client asks for a training, or for anything else that takes long."""

    def _trained(self, start: Weights, work: Work) -> tuple[Weights, float]:
        raise _AskedError(Share(start, self.examples, work, self.order_of_examples))

    def loss(self, weights: Weights) -> float:
        """Refuse: it would be computed twice."""
        self._refuse()

    def features(self, weights: Weights) -> Any:
        """Refuse: they would be computed twice."""
        self._refuse()

    def send(self, weights: Weights, **_: Any) -> None:
        """Refuse: there was nothing to train."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise AloneError("this client does other things before it trains")
