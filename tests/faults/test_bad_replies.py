"""No client ends a run: a bad reply costs the client its round, and the others nothing, to the bit."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from support.bad_replies import ALWAYS, EVALUATED, NO_MISTAKE, OF_STRATEGY, Spoil
from support.helpers import Recorder, config, tiny_data
from torch import nn

from fedexp import strategies
from fedexp.backends.inline import InlineGrid
from fedexp.config.clients import ClientsConfig
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.core.options import FedexpError
from fedexp.core.replies import LONGEST
from fedexp.core.state import pack
from fedexp.core.weights import hash_weights
from fedexp.data.examples import Spec
from fedexp.federation.client import ClientNode
from fedexp.federation.evaluation import ServerEvaluation
from fedexp.federation.guards import Holdings
from fedexp.federation.rounds import RoundLoop
from fedexp.federation.servers import build_server
from fedexp.flower.app import client_app
from fedexp.flower.messages import to_record
from fedexp.models import Model
from fedexp.strategies import CENTRALIZED
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.scaffold import Scaffold

NUM, BAD = 8, 3
"""Clients, enough of them for Bulyan without one; and the one that does something wrong."""

DATA = tiny_data(sizes=(6,) * NUM, test_sizes=(3,) * NUM)
NAMES = strategies.choices()
WEIGHTY = [name for name in NAMES if name not in NO_MISTAKE]  # who sends weights
KINDS = list(ALWAYS)


@dataclass(frozen=True)
class Small(Model):
    """A linear model of 16 pixels, with a BatchNorm before it: statistics, and a counter of batches."""

    name: str = "small"
    normed: bool = True

    def build(self, spec: Spec) -> nn.Module:
        norm = nn.BatchNorm1d(16) if self.normed else nn.Identity()
        return nn.Sequential(nn.AvgPool2d(7), nn.Flatten(), norm, nn.Linear(16, 10))


def _experiment(name: str) -> Config:
    strategy = strategies.get(name)()
    return config(
        rounds=2,
        strategy=strategy,
        model=Small(normed=not strategy.measures_distances),
        clients=ClientsConfig(num=NUM, fraction_evaluate=1.0),
        training=TrainingConfig(local_steps=2, batch_size=3),
    )


def _drop(asked: Message, reply: Message) -> Any:
    raise ConnectionError("gone")


class Spoiled(ClientApp):
    """Clients of which one does as told in the first round, once it has trained or evaluated."""

    def __init__(self, experiment: Config, kind: str, spoil: Spoil) -> None:
        super().__init__()
        self._sound = client_app(ClientNode(experiment, lambda: DATA))
        self._client = 0 if experiment.strategy.kind == CENTRALIZED else BAD
        self._kind, self._spoil = kind, spoil

    def __call__(self, message: Message, context: Context) -> Any:
        told = message.content.config_records["config"]["server-round"]
        client, kind = message.metadata.dst_node_id, message.metadata.message_type
        reply = self._sound(message, context)
        if (client, told, kind) == (self._client, 1, self._kind):
            return self._spoil(message, reply)
        return reply


@dataclass(frozen=True)
class Found:
    """All that a run came to, but for words and seconds."""

    model: str
    state: str
    measurements: list[Any]
    failures: list[Any]
    error: str


def _run(experiment: Config, spoil: Spoil, kind: str = "train") -> tuple[Found, list[str]]:
    evaluation, told = ServerEvaluation(experiment, DATA), Recorder()
    holdings = Holdings(DATA.partition.size, DATA.client_test.size)
    server = build_server(experiment, evaluation)
    loop = RoundLoop(experiment, server, evaluation, told, holdings)
    grid = InlineGrid(Spoiled(experiment, kind, spoil), NUM)
    error = ""
    try:
        loop.run(grid)
    except FedexpError as raised:
        error = str(raised)
    state = _hash({"server": server.state(), "clients": grid.client_states()})
    failures = [row[:3] for row in told.failures]
    model = hash_weights(loop.outcome.weights)
    found = Found(model, state, told.measurements, failures, error.partition(";")[0])
    return found, [error, *(row.reason for row in told.failures)]


def _hash(state: dict[str, Any]) -> str:
    found = re.search(rb"\b[0-9a-f]{64}\b", pack(state))
    assert found
    return found[0].decode()


@cache
def _without(name: str, kind: str = "train") -> Found:
    """Run a strategy without the client."""
    return _run(_experiment(name), _drop, kind)[0]


def _costs_its_own_reply(name: str, spoil: Spoil, kind: str = "train") -> None:
    found, lines = _run(_experiment(name), spoil, kind)
    assert found == _without(name, kind)
    phase = "train" if kind == "train" else "client_evaluate"
    only = 0 if strategies.get(name).kind == CENTRALIZED else BAD
    assert found.failures == [(1, phase, only)]
    assert bool(found.error) == (name == "centralized" and kind == "train")  # it asks one client
    for line in lines:
        assert line.isprintable()
        assert len(line) <= LONGEST + 100


def test_the_client_matters() -> None:
    sound = _run(_experiment("fedavg"), lambda asked, reply: reply)[0]
    assert sound.failures == []
    assert sound.model != _without("fedavg").model


SAMPLE = KINDS[::4]
"""What the default set tries, each under one strategy: all of it takes minutes."""


@pytest.mark.parametrize(
    ("name", "kind"),
    [(WEIGHTY[number % len(WEIGHTY)], kind) for number, kind in enumerate(SAMPLE)],
)
def test_every_bad_reply_under_some_strategy(name: str, kind: str) -> None:
    _costs_its_own_reply(name, ALWAYS[kind])


@pytest.mark.slow  # the whole cross: minutes
@pytest.mark.parametrize("name", NAMES)
def test_every_bad_reply_under_every_strategy(name: str) -> None:
    for kind in ALWAYS.keys() - NO_MISTAKE.get(name, set()):
        try:
            _costs_its_own_reply(name, ALWAYS[kind])
        except AssertionError as error:
            raise AssertionError(f"{name}: {kind}: {error}") from error


def _sampled(kinds: list[Any]) -> list[Any]:
    """Return parameters of which the default set tries every second one."""
    return [
        pytest.param(kind, marks=pytest.mark.slow if number % 2 else ())
        for number, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize(
    "case", _sampled([(name, kind) for name, kinds in OF_STRATEGY.items() for kind in kinds])
)
def test_what_a_strategy_reads_beside_weights(case: tuple[str, str]) -> None:
    name, kind = case
    _costs_its_own_reply(name, OF_STRATEGY[name][kind])


@pytest.mark.parametrize("kind", _sampled(list(EVALUATED)))
def test_bad_replies_to_an_evaluation(kind: str) -> None:
    _costs_its_own_reply("fedavg", EVALUATED[kind], "evaluate")


def test_the_order_of_names_is_the_models() -> None:
    def turned(asked: Message, reply: Message) -> Any:
        arrays = {
            name: array.numpy() for name, array in reply.content.array_records["arrays"].items()
        }
        reply.content["arrays"] = to_record(dict(reversed(arrays.items())))
        return reply

    for name in ("fedavg", "qfedavg", "fedmedian"):
        sound, _ = _run(_experiment(name), lambda asked, reply: reply)
        assert _run(_experiment(name), turned)[0] == sound


def test_what_a_refused_client_kept_is_taken_back() -> None:
    experiment = _experiment("scaffold")
    assert isinstance(experiment.strategy, Scaffold)
    one = replace(experiment, rounds=1)
    states = []
    for spoil in (_drop, ALWAYS["one NaN"]):
        evaluation = ServerEvaluation(one, DATA)
        grid = InlineGrid(Spoiled(one, "train", spoil), NUM)
        RoundLoop(one, build_server(one, evaluation), evaluation, Recorder()).run(grid)
        assert set(grid.client_states()) == set(range(NUM)) - {BAD}
        states.append(_hash({"clients": grid.client_states()}))
    assert states[0] == states[1]


@pytest.mark.parametrize(("fewest", "completes"), [(1, True), (NUM - 1, True), (NUM, False)])
def test_a_round_needs_so_many_replies(fewest: int, completes: bool) -> None:
    experiment = _experiment("fedavg")
    clients = replace(experiment.clients, min_success=fewest)
    found, lines = _run(replace(experiment, strategy=FedAvg(), clients=clients), _drop)
    assert (found.error == "") == completes
    if not completes:
        assert lines[0].startswith("round 1: 7 of 8 clients sent what can be used, fewer than")
        assert found.failures == [(1, "train", BAD)]


def test_a_strategy_that_asks_one_client_needs_no_more_replies() -> None:
    experiment = _experiment("centralized")
    clients = replace(experiment.clients, min_success=NUM)
    assert _run(replace(experiment, clients=clients), lambda asked, reply: reply)[0].error == ""
