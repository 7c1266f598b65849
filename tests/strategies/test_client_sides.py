"""What the clients of each strategy do with a job, without training anything."""

from __future__ import annotations

import pytest
from support.helpers import ScriptedJob, values, weights_of

from fedexp import strategies
from fedexp.core.roles import Client, Order
from fedexp.strategies.fednova import FedNova
from fedexp.strategies.fedprox import FedProx
from fedexp.strategies.qfedavg import QFedAvg

START, TRAINED = weights_of(4.0, 4.0), weights_of(3.0, 6.0)


def _job(**how: object) -> ScriptedJob:
    return ScriptedJob(Order(START), TRAINED, **how)  # type: ignore[arg-type]


def test_the_default_trains_the_model_and_sends_it_back() -> None:
    job = _job()
    Client().run(job)
    assert job.asked == [{"start": None}]
    ((weights, arrays, numbers),) = job.sent
    assert weights is TRAINED
    assert (arrays, numbers) == ({}, {})
    assert job.state == {}
    assert Client().weights_to_test(job) is START


def test_fedprox_pulls_to_where_the_round_started() -> None:
    job = _job()
    FedProx(proximal_mu=0.25).client().run(job)
    assert job.asked == [{"start": None, "pull": 0.25}]
    ((weights, arrays, numbers),) = job.sent
    assert values(weights) == [3.0, 6.0]
    assert (arrays, numbers) == ({}, {})


@pytest.mark.parametrize(
    ("steps", "momentum", "mass"),
    [
        (5, 0.0, 5.0),
        (2, 0.5, 2.5),  # 1 + 0.5 times the first, once the second
        (3, 0.5, 4.25),  # 1.75 + 1.5 + 1
    ],
)
def test_fednova_sends_the_gradient_mass_of_its_steps(
    steps: int, momentum: float, mass: float
) -> None:
    job = _job(steps=steps, momentum=momentum)
    FedNova().client().run(job)
    assert job.asked == [{"start": None}]
    ((weights, arrays, numbers),) = job.sent
    assert weights is TRAINED
    assert arrays == {}
    assert numbers == {"gradient-mass": pytest.approx(mass)}


def test_qfedavg_sends_the_loss_of_the_incoming_model() -> None:
    job = _job(losses={id(START): 2.5, id(TRAINED): 0.5})
    QFedAvg().client().run(job)
    ((weights, arrays, numbers),) = job.sent
    assert weights is TRAINED
    assert arrays == {}
    assert numbers == {"global-loss": 2.5}


def test_clients_of_their_own() -> None:
    own = {p.name for p in strategies.REGISTRY.pages().values() if type(p().client()) is not Client}
    assert own == {
        *("fedprox", "fednova", "qfedavg", "scaffold"),
        *("finetune", "fedper", "lgfedavg", "fedrep", "fedbn", "fedbabu", "ditto", "apfl"),
        *("fedala", "pfedme", "perfedavg", "fedrod", "fedproto"),
        *("feddyn", "fedcm", "fedsam", "moon", "fedlc", "fedntd", "afl", "ifca"),
    }
