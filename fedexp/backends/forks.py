"""Processes that run clients beside this one, forked before anything was trained.

A fork is there at once, where a process of Ray's takes seconds to import torch. Where a client runs
changes no bit, so whoever has time takes the next one.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import queue
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from multiprocessing.util import Finalize
from typing import Any

import torch
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from torch.nn import functional as F

from fedexp.backends.base import Work, call_client
from fedexp.backends.slots import Slots
from fedexp.config.schema import Config
from fedexp.core import forked
from fedexp.federation.client import ClientNode
from fedexp.federation.dealing import federate
from fedexp.flower.app import client_app
from fedexp.flower.internals import message_from
from fedexp.flower.messages import content_bytes

log = logging.getLogger("fedexp")

IN_A_PIECE = 32 * 2**20
"""Bytes of weights that a process is sent at a time, if it is sent several clients."""

SOON = 0.01
"""Seconds for which a process may keep an answer, to send it with the next ones."""

Answer = tuple[Message, RecordDict]
"""A client's reply, and its state after it."""


@dataclass(eq=False)
class Fork:
    """One of the processes.

    Attributes:
        process: The process.
        pipe: To it.
        slots: Where its answers' arrays lie.
        owed: What it was sent and has not answered, in order.
        latest: How many messages the last piece had that it was sent.
        content: The last content that it was sent, which it still has.
        is_ready: Whether it has shown that it can compute.
    """

    process: ForkProcess
    pipe: Connection
    slots: Slots
    owed: deque[Message] = field(default_factory=deque)
    latest: int = 0
    content: RecordDict | None = None
    is_ready: bool = False

    def send(self, what: object) -> None:
        """Send something, unless the process died: who takes its answers finds that out."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(what)

    @property
    def has_room(self) -> bool:
        """Whether it may be sent a piece: one lies ready while it works on the one before."""
        return self.is_ready and len(self.owed) <= self.latest


class Forks:
    """Forks of this process, for one run of a command after another.

    Args:
        size: How many.
        app: What clients do in the first run.
        config: The experiment of the first run.
    """

    def __init__(self, size: int, app: ClientApp, config: Config) -> None:
        self._config, self._forks = config, list[Fork]()
        try:
            for _ in range(size):
                pipes, slots = [fork.pipe for fork in self._forks], Slots()
                process, pipe = forked.fork(
                    _serve_until_ended, slots, app, config.clients.num, beside=pipes
                )
                self._forks.append(Fork(process, pipe, slots))
        except OSError as error:  # no memory, or too many processes: fewer do as well
            log.info("%d forks run clients, not %d: %s", len(self), size, error)
        # Else Python would wait for them: this runs at the end of forks of the program, too.
        Finalize(None, self.dismiss, exitpriority=0)

    def __len__(self) -> int:
        return len(self._forks)

    @property
    def busy(self) -> bool:
        """Whether somebody owes an answer."""
        return any(fork.owed for fork in self._forks)

    @property
    def told(self) -> bool:
        """Whether something waits to be heard."""
        return bool(self._speaking(0))

    def begin(self, config: Config) -> None:
        """Work for another run from now on, unless it is the same."""
        if config is self._config:
            return
        self._config = config
        for fork in list(self._forks):
            if not fork.is_ready and not fork.pipe.poll():  # it may never read what it is sent
                fork.process.kill()
                self._remove(fork)
            else:
                fork.send(config)

    def feed(self, waiting: deque[Message], states: dict[int, RecordDict]) -> None:
        """Send everybody who has room a piece: the smaller the less there is, so that all end together.

        Nobody gets more than its share of what is left, this process among them: it takes the last ones
        itself rather than wait for them.

        Args:
            waiting: What nobody has been asked yet; what is sent is taken from its front.
            states: What clients keep.
        """
        left = len(waiting) + sum(len(fork.owed) for fork in self._forks)
        share = math.ceil(left / (1 + len(self)))
        for fork in self._forks:
            while waiting and fork.has_room and len(fork.owed) < share:
                most = math.ceil(len(waiting) / (4 * (1 + len(self))))
                piece = _piece(waiting, min(most, share - len(fork.owed)), states)
                fork.owed.extend(piece)
                fork.latest = len(piece)
                fork.send(_packed(piece, states, fork.content))
                fork.content = piece[-1].content

    def answers(self, waiting: deque[Message], *, patiently: bool) -> Iterator[Answer]:
        """Yield what has been answered; messages of a fork that died wait again.

        Args:
            waiting: What nobody has been asked yet.
            patiently: Whether to wait until there is something, if somebody owes an answer.
        """
        for fork in self._speaking(None if patiently and self.busy else 0):
            try:
                answers = fork.slots.receive(fork.pipe) if fork.is_ready else fork.pipe.recv()
            except (EOFError, OSError):  # also in the middle of an answer
                waiting.extendleft(reversed(fork.owed))
                self._remove(fork)
                code = fork.process.exitcode
                log.warning("a fork ended (exit code %s): its clients are asked again", code)
                continue
            fork.is_ready = True
            for answer in answers:
                fork.owed.popleft()
                yield answer

    def _speaking(self, patience: int | None) -> list[Fork]:
        """Return who has sent something, or has died; None waits for somebody."""
        forks = {f.pipe.fileno(): f for f in self._forks if f.owed or not f.is_ready}
        poll = select.poll()  # what multiprocessing.connection.wait does, without what is around it
        for number in forks:
            poll.register(number, select.POLLIN)
        return [forks[number] for number, _ in poll.poll(patience)]

    def dismiss(self) -> None:
        """End all of them, whatever they are at."""
        for fork in self._forks:
            fork.process.kill()
        for fork in list(self._forks):
            self._remove(fork)

    def _remove(self, fork: Fork) -> None:
        fork.process.join()
        fork.pipe.close()
        self._forks.remove(fork)


def _piece(waiting: deque[Message], most: int, states: dict[int, RecordDict]) -> list[Message]:
    """Take messages from the front: so many at most, and one at least, of no more than so many bytes."""
    piece, size = list[Message](), 0
    while waiting and len(piece) < most:
        message = waiting[0]
        kept = states.get(message.metadata.dst_node_id, RecordDict())
        size += content_bytes(message.content) + content_bytes(kept)
        if piece and size > IN_A_PIECE:
            break
        piece.append(waiting.popleft())
    return piece


def _packed(
    piece: Sequence[Message], states: dict[int, RecordDict], held: RecordDict | None
) -> tuple[list[RecordDict | None], list[Work]]:
    """Return a piece as it is sent: contents once each, None for the one that a fork holds already."""
    contents = {id(message.content): message.content for message in piece}
    places = {key: place for place, key in enumerate(contents)}
    work = [
        (
            message.metadata,
            places[id(message.content)],
            states.get(message.metadata.dst_node_id, RecordDict()),
        )
        for message in piece
    ]
    return [None if content is held else content for content in contents.values()], work


def _serve(pipe: Connection, parent: int, slots: Slots, app: ClientApp, num_clients: int) -> None:
    """Run clients in a process of its own, until the one that asks for it is gone."""
    forked.belong_to(parent)
    gc.freeze()  # what is here is never garbage; looking through it would copy it
    _compute()
    pipe.send([])
    asked_for = queue.SimpleQueue[Any]()
    receive = partial(_receive, pipe, asked_for)
    threading.Thread(target=_ending, args=(receive,), daemon=True).start()
    held, answers, since = RecordDict(), list[Answer](), time.monotonic()
    while True:
        asked = asked_for.get()
        if isinstance(asked, Config):
            source = cache(partial(federate, asked))
            source()  # what cannot be read here is no client's fault
            app, num_clients = client_app(ClientNode(asked, source)), asked.clients.num
            continue
        contents, work = asked
        contents = [held if content is None else content for content in contents]
        for number, (metadata, place, state) in enumerate(work, start=1):
            message = message_from(metadata, contents[place])
            answers.append(call_client(app, message, num_clients, state, in_worker=True))
            # There is nothing else to do: whoever asks must not wait for what is done.
            idle = number == len(work) and asked_for.empty()
            if (idle or time.monotonic() - since > SOON) and slots.send(
                answers, pipe, patiently=idle
            ):
                answers, since = [], time.monotonic()
        held = contents[work[-1][1]]


def _serve_until_ended(pipe: Connection, *args: Any) -> None:
    _ending(partial(_serve, pipe, *args))


def _ending(part: Callable[[], object]) -> None:
    """Run a part of a fork; whatever ends it ends the fork, which the one that asks finds out.

    What the program does as it ends is not the fork's to do.
    """
    try:
        part()
    except EOFError:
        os._exit(0)
    except BaseException:
        log.exception("a fork that runs clients")
    os._exit(1)


def _receive(pipe: Connection, asked_for: queue.SimpleQueue[Any]) -> None:
    """Take in what is sent, also while answers are: a pipe holds little, and both ends would wait."""
    while True:
        asked_for.put(pipe.recv())


def _compute() -> None:
    """Take a gradient: in the fork of a process that has computed on several threads, this never ends."""
    torch.set_num_threads(1)
    kernel = torch.ones(8, 1, 5, 5, requires_grad=True)
    F.conv2d(torch.ones(32, 1, 28, 28), kernel).sum().backward()
