"""What a strategy or a way of training needs of the rest, refused where it is not there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.helpers import config

from fedexp.config.backend import FlowerBackend, InlineBackend, RayBackend
from fedexp.config.clients import ClientsConfig
from fedexp.config.training import TrainingConfig
from fedexp.config.validation import validate
from fedexp.models.mobilenet_v3_small import MobilenetV3Small
from fedexp.strategies import Strategy
from fedexp.strategies.bulyan import Bulyan
from fedexp.strategies.fedavg import FedAvg
from fedexp.strategies.fedmedian import FedMedian
from fedexp.strategies.fednova import FedNova
from fedexp.strategies.fedtrimmedavg import FedTrimmedAvg
from fedexp.strategies.krum import Krum
from fedexp.strategies.multikrum import MultiKrum
from fedexp.strategies.scaffold import Scaffold


@pytest.mark.parametrize(
    ("strategy", "fewest", "formula"),
    [
        (FedMedian(), 3, "(3 (the median of two is their mean))"),
        (
            FedTrimmedAvg(beta=0.2),
            5,
            "(1 / strategy.beta (with fewer, nothing is trimmed))",
        ),
        (FedTrimmedAvg(beta=0.3), 4, "1 / strategy.beta"),  # int(0.3 * 3) is nothing
        (FedTrimmedAvg(beta=0.07), 15, "1 / strategy.beta"),
        (Krum(num_malicious=1), 5, "(2 * strategy.num_malicious + 3)"),
        (Krum(num_malicious=3), 9, "(2 * strategy.num_malicious + 3)"),
        (
            MultiKrum(num_malicious=1, num_selected=3),
            6,
            "num_malicious + 2 + strategy.num_s",
        ),
        (
            MultiKrum(num_malicious=4, num_selected=1),
            11,
            "max(2 * strategy.num_malicious + 3",
        ),
        (Bulyan(num_malicious=2), 11, "(4 * strategy.num_malicious + 3)"),
    ],
)
def test_too_few_clients_for_a_guarantee(strategy: Strategy, fewest: int, formula: str) -> None:
    def lines(num: int, fraction: float = 1.0) -> list[str]:
        return validate(config(strategy=strategy, clients=ClientsConfig(num, fraction)))

    assert lines(fewest) == []
    (line,) = lines(fewest - 1)
    assert f"strategy={strategy.name} needs at least {fewest} clients in a round " in line
    assert formula in line
    assert f"got {fewest - 1} (clients.num={fewest - 1}, clients.fraction_train=1.0)" in line
    # What counts are the clients of a round.
    assert lines(10 * fewest, 0.1) == []
    assert len(lines(10 * fewest - 10, 0.1)) == 1


def test_what_counts_steps_needs_sgd() -> None:
    adam = replace(config().training, optimizer="adam")
    for strategy in (Scaffold(), FedNova()):
        (line,) = validate(config(strategy=strategy, training=adam))
        assert line.endswith("training.optimizer must be sgd, got 'adam'")
        assert validate(config(strategy=strategy)) == []
    assert validate(config(strategy=FedAvg(), training=adam)) == []


@pytest.mark.parametrize("strategy", [Krum(), MultiKrum(), Bulyan()])
def test_distances_are_not_measured_between_buffers(strategy: Strategy) -> None:
    seven = ClientsConfig(num=7)
    (line,) = validate(config(strategy=strategy, clients=seven, model=MobilenetV3Small()))
    assert "measures distances between weights" in line
    assert validate(config(strategy=strategy, clients=seven)) == []


def test_rules_of_training() -> None:
    def lines(training: TrainingConfig, **changes: object) -> list[str]:
        return validate(config(training=training, **changes))

    (line,) = lines(TrainingConfig(batch_size="half"))
    assert line == "training.batch_size must be a number >= 1 or full, got 'half'"
    assert lines(TrainingConfig(batch_size="full")) == []
    late = ClientsConfig(num=3, stragglers=0.5)
    (line,) = lines(TrainingConfig(local_epochs=1), clients=late)
    assert line.startswith("clients.stragglers needs training.local_epochs >= 2")
    (line,) = lines(TrainingConfig(local_epochs=9, local_steps=1), clients=late)
    assert line.startswith("clients.stragglers needs training.local_steps >= 2")
    assert lines(TrainingConfig(local_epochs=2), clients=late) == []


def test_mixed_precision_needs_a_gpu() -> None:
    mixed = TrainingConfig(amp=True)
    (line,) = validate(config(training=mixed, backend=InlineBackend(device="cpu")))
    assert line.endswith("backend.device must not be cpu")
    for backend in (RayBackend(), FlowerBackend()):  # without one reserved, workers take the CPU
        (line,) = validate(config(training=mixed, backend=backend))
        assert line.endswith("backend.num_gpus_per_worker must be > 0, got 0.0")
    assert validate(config(training=mixed, backend=RayBackend(num_gpus_per_worker=0.5))) == []
    assert validate(config(training=mixed, backend=InlineBackend())) == []
