"""Processes that run clients beside this one, forked before anything was trained.

A fork is there at once, where a process of Ray's takes seconds to import torch. Where a client runs
changes no bit, so whoever has time takes the next one.
"""

from __future__ import annotations

import gc
import logging
import math
import multiprocessing
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any

import torch
from flwr.app import Message, Metadata, RecordDict
from flwr.clientapp import ClientApp
from torch.nn import functional as F

from fedexp.backends.base import call_client
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

AHEAD = 4
"""Answers that may wait to be sent."""

Work = tuple[Metadata, int, RecordDict]
"""A message's metadata, the position of its content among the contents sent along, client state."""

Answer = tuple[Message, RecordDict]
"""A client's reply, and its state after it."""


@dataclass(eq=False)
class Hand:
    """One of the processes.

    Attributes:
        process: The process.
        pipe: To it.
        owed: What it was sent and has not answered, in order.
        latest: How many messages the last piece had that it was sent.
        is_ready: Whether it has shown that it can compute.
    """

    process: ForkProcess
    pipe: Connection
    owed: deque[Message] = field(default_factory=deque)
    latest: int = 0
    is_ready: bool = False

    @property
    def has_room(self) -> bool:
        """Whether it may be sent a piece: one lies ready while it works on the one before."""
        return self.is_ready and len(self.owed) <= self.latest


class Hands:
    """The processes, for one run after another.

    Args:
        size: How many.
        app: What clients do in the first run.
        config: The experiment of the first run.
    """

    def __init__(self, size: int, app: ClientApp, config: Config) -> None:
        self._config, self._hands = config, list[Hand]()
        for _ in range(size):
            self._hands.append(self._fork(app, config.clients.num))

    @property
    def busy(self) -> bool:
        """Whether somebody owes an answer."""
        return any(hand.owed for hand in self._hands)

    def begin(self, config: Config) -> None:
        """Work for another run from now on, unless it is the same.

        Raises:
            Exception: If the configuration cannot be sent: a class of it is known to a script alone.
        """
        if config is not self._config:
            self._config = config
            for hand in self._hands:
                with suppress(
                    BrokenPipeError, ConnectionResetError
                ):  # it died: who takes answers sees it
                    hand.pipe.send(config)

    def feed(self, waiting: deque[Message], states: dict[int, RecordDict]) -> None:
        """Send everybody who has room a piece: the smaller the less there is, so that all end together.

        Args:
            waiting: What nobody has been asked yet; what is sent is taken from its front.
            states: What clients keep.
        """
        for hand in self._hands:
            while waiting and hand.has_room:
                most = math.ceil(len(waiting) / (4 * (1 + len(self._hands))))
                piece = _piece(waiting, most, states)
                hand.owed.extend(piece)
                hand.latest = len(piece)
                with suppress(BrokenPipeError, ConnectionResetError):
                    hand.pipe.send(_packed(piece, states))

    def answers(self, waiting: deque[Message], *, patiently: bool) -> Iterator[Answer]:
        """Yield what has been answered; messages of a process that died wait again.

        Args:
            waiting: What nobody has been asked yet.
            patiently: Whether to wait until there is something, if somebody owes an answer.
        """
        pipes = {hand.pipe: hand for hand in self._hands if hand.owed or not hand.is_ready}
        for ready in wait(list(pipes), None if patiently and self.busy else 0):
            hand = pipes[ready]  # type: ignore[index]
            try:
                answer = hand.pipe.recv()
            except (EOFError, ConnectionResetError):
                self._lose(hand, waiting)
                continue
            if answer is None:
                hand.is_ready = True
            else:
                hand.owed.popleft()
                yield answer

    def _lose(self, hand: Hand, waiting: deque[Message]) -> None:
        waiting.extendleft(reversed(hand.owed))
        hand.process.join()
        self._hands.remove(hand)
        log.warning(
            "a process that ran clients ended (exit code %s): they are asked again",
            hand.process.exitcode,
        )

    def dismiss(self) -> None:
        """End all of them, whatever they are at."""
        for hand in self._hands:
            hand.process.kill()
        for hand in self._hands:
            hand.process.join()
            hand.pipe.close()
        self._hands.clear()

    def _fork(self, app: ClientApp, num_clients: int) -> Hand:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        inherited = [ours, *(hand.pipe for hand in self._hands)]
        process = context.Process(
            target=_serve, args=(theirs, inherited, os.getpid(), app, num_clients), daemon=True
        )
        process.start()
        theirs.close()
        return Hand(process, ours)


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
    piece: Sequence[Message], states: dict[int, RecordDict]
) -> tuple[list[RecordDict], list[Work]]:
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
    return list(contents.values()), work


def _serve(
    pipe: Connection, inherited: Sequence[Connection], parent: int, app: ClientApp, num_clients: int
) -> None:
    """Run clients in a process of its own, until the one that asks for it is gone."""
    try:
        # The terminal tells all processes; the one that asks puts in order what there is to be.
        for name in (signal.SIGINT, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        forked.end_with_parent(parent, signal.SIGKILL)
        for other in inherited:
            other.close()
        gc.freeze()  # what is here is never garbage; looking through it would copy it
        _compute()
        pipe.send(None)
        asked_for, answers = queue.SimpleQueue[Any](), queue.Queue[Answer](AHEAD)
        for target, passed in ((_receive, asked_for), (_send, answers)):
            threading.Thread(target=target, args=(pipe, passed), daemon=True).start()
        while (asked := asked_for.get()) is not None:
            if isinstance(asked, Config):
                source = cache(partial(federate, asked))
                app, num_clients = client_app(ClientNode(asked, source)), asked.clients.num
                continue
            contents, work = asked
            for metadata, place, state in work:
                message = message_from(metadata, contents[place])
                answers.put(call_client(app, message, num_clients, state, in_worker=True))
    except BaseException:
        log.exception("a process that runs clients")
        os._exit(1)
    os._exit(0)  # what the parent does as it ends is not this process's to do


def _receive(pipe: Connection, asked_for: queue.SimpleQueue[Any]) -> None:
    """Take in what is sent, also while answers are: a pipe holds little, and both ends would wait."""
    with suppress(EOFError, OSError):
        while True:
            asked_for.put(pipe.recv())
    asked_for.put(None)


def _send(pipe: Connection, answers: queue.Queue[Answer]) -> None:
    """Send answers while the next client is at work: who asked takes them when it has time."""
    with suppress(OSError):
        while True:
            pipe.send(answers.get())


def _compute() -> None:
    """Take a gradient: in the fork of a process that has computed on several threads, this never ends."""
    torch.set_num_threads(1)
    kernel = torch.ones(8, 1, 5, 5, requires_grad=True)
    F.conv2d(torch.ones(32, 1, 28, 28), kernel).sum().backward()
