"""What a strategy or a way of training needs of the rest, refused where it is not there."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.helpers import config

from fedexp import attacks
from fedexp.attacks import Attack
from fedexp.config.backend import FlowerBackend, InlineBackend, RayBackend
from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.config.composition import compose_config
from fedexp.config.schema import GROUPS, StopConfig
from fedexp.config.training import TrainingConfig
from fedexp.config.validation import validate
from fedexp.core.options import ConfigError, one_of, ranged
from fedexp.datasets.mnist5k import Mnist5k
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


def test_clients_are_stacked_only_where_several_are_in_one_place() -> None:
    (line,) = validate(config(backend=FlowerBackend(stack=2)))
    assert line.startswith("backend.stack=2 trains clients together, and backend=flower")
    (line,) = validate(config(backend=RayBackend(stack=2, timeout=5.0)))
    assert line.startswith("backend.stack=2 trains clients together, and backend.timeout")
    (line,) = validate(config(backend=RayBackend(stack=2, jobs=2)))
    assert line.startswith("backend.jobs=2 leaves clients in the process of their run")
    for backend in (
        FlowerBackend(stack=1),
        RayBackend(stack=1, timeout=5.0),
        RayBackend(stack=2),
        InlineBackend(stack=2),
    ):
        assert validate(config(backend=backend)) == []
    # Left alone, a client's time is its own.
    assert RayBackend(timeout=5.0).stacked == FlowerBackend().stacked == 1


def test_mixed_precision_needs_a_gpu() -> None:
    mixed = TrainingConfig(amp=True)
    (line,) = validate(config(training=mixed, backend=InlineBackend(device="cpu")))
    assert line.endswith("backend.device must not be cpu")
    for backend in (RayBackend(), FlowerBackend()):  # without one reserved, workers take the CPU
        (line,) = validate(config(training=mixed, backend=backend))
        assert line.endswith("backend.num_gpus_per_worker must be > 0, got 0.0")
    assert validate(config(training=mixed, backend=RayBackend(num_gpus_per_worker=0.5))) == []
    assert validate(config(training=mixed, backend=InlineBackend())) == []


@dataclass(frozen=True)
class Pushy(Attack):
    """An attack with options of its own."""

    name: str = "pushy"
    strength: float = ranged(1.0, gt=0)
    times: int = ranged(1, ge=1)
    way: str = one_of("up", "up", "down")
    most: float | None = ranged(None, gt=0)


@pytest.fixture
def pushy() -> Iterator[None]:
    attacks.register(Pushy)
    yield
    attacks.REGISTRY.forget("pushy")


def _attacked(options: dict[str, Any], kind: str = "pushy", scale: float = 1.0) -> list[str]:
    byzantine = ByzantineConfig(fraction=0.3, kind=kind, scale=scale, options=options)
    return validate(config(clients=ClientsConfig(num=3, byzantine=byzantine)))


@pytest.mark.usefixtures("pushy")
def test_an_attack_takes_its_own_options() -> None:
    options = {"strength": 2, "times": 3, "way": "down", "most": None}
    assert _attacked(options) == []
    byzantine = ByzantineConfig(kind="pushy", scale=4.0, options=options)
    assert byzantine.attack() == Pushy(scale=4.0, strength=2, times=3, way="down")


@pytest.mark.usefixtures("pushy")
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"strenght": 2},
            "clients.byzantine.options.strenght: pushy has no such option; it has strength, times, "
            "way, most",
        ),
        (
            {"scale": 2},
            "clients.byzantine.options.scale: pushy has no such option; it has strength, ",
        ),
        (
            {"name": "x"},
            "clients.byzantine.options.name: pushy has no such option; it has strength, ",
        ),
        ({"strength": 0}, "clients.byzantine.options.strength must be > 0, got 0"),
        ({"times": -1}, "clients.byzantine.options.times must be >= 1, got -1"),
        ({"most": 0.0}, "clients.byzantine.options.most must be > 0, got 0.0"),
        ({"way": "on"}, "clients.byzantine.options.way must be one of up, down, got 'on'"),
        ({"strength": float("nan")}, "clients.byzantine.options.strength must be a finite number"),
        # What a dataclass of the schema would refuse: values of another type.
        ({"strength": "much"}, "clients.byzantine.options.strength"),
        ({"strength": [1.0, 2.0]}, "clients.byzantine.options.strength"),
        ({"strength": None}, "clients.byzantine.options.strength"),
        ({"times": 1.5}, "clients.byzantine.options.times"),
    ],
)
def test_options_that_an_attack_has_not_are_a_mistake(options: dict[str, Any], line: str) -> None:
    (found,) = _attacked(options)
    assert found.startswith(line)


@pytest.mark.usefixtures("pushy")
def test_every_mistake_in_an_attacks_options_is_named() -> None:
    assert len(_attacked({"strenght": 1, "tmies": 2})) == 2
    assert len(_attacked({"strength": 0, "times": 0})) == 2


def test_a_built_in_attack_has_its_scale_alone() -> None:
    assert _attacked({"strength": 1}, "label_flip") == [
        "clients.byzantine.options.strength: label_flip has no such option; it has none beside "
        "clients.byzantine.scale"
    ]
    assert _attacked({}, "sign_flip", scale=0.0) == ["clients.byzantine.scale must be > 0, got 0.0"]
    (line,) = _attacked({}, "flip")
    assert line == (
        "clients.byzantine.kind must be one of gaussian, label_flip, little_is_enough, sign_flip, "
        "got 'flip'"
    )


@pytest.mark.usefixtures("pushy")
def test_an_attacks_options_are_set_on_the_command_line() -> None:
    word = "clients.byzantine.options"
    for words in (
        [f"{word}.strength=0.5"],
        [f"+{word}.strength=0.5"],
        [f"{word}={{strength:0.5}}"],
    ):
        byzantine = compose_config(["clients.byzantine.kind=pushy", *words]).clients.byzantine
        assert byzantine.attack() == Pushy(strength=0.5)
    with pytest.raises(ConfigError) as caught:
        compose_config(["clients.byzantine.kind=pushy", f"{word}.strenght=0.5", "rounds=0"])
    assert [line.split()[0] for line in caught.value.errors] == ["rounds", f"{word}.strenght:"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"metrics": ["acuracy"]},
            "metrics must be among accuracy, auroc, balanced_accuracy, brier, ece, loss, macro_f1, "
            "top5, got 'acuracy'",
        ),
        (
            {"stop": StopConfig(metric="macro_f1")},
            "stop.metric must be one of accuracy, loss, got 'macro_f1'; metrics=[macro_f1] adds it",
        ),
        (
            {"metrics": ["top5"], "stop": StopConfig(metric="macro_f1")},
            "stop.metric must be one of accuracy, loss, top5, got 'macro_f1'; metrics=[macro_f1] "
            "adds it",
        ),
        (
            {"stop": StopConfig(metric="worst10")},
            "stop.metric must be one of accuracy, loss, got 'worst10'",
        ),
        (
            {"objective": "ece"},
            "objective must be one of accuracy, loss, best_accuracy, worst10, got 'ece'; "
            "metrics=[ece] adds it",
        ),
        (
            {"objective": "speed"},
            "objective must be one of accuracy, loss, best_accuracy, worst10, got 'speed'",
        ),
    ],
)
def test_words_of_metrics_that_are_not_measured_are_refused(
    changes: dict[str, Any], line: str
) -> None:
    assert validate(config(**changes)) == [line]


@pytest.mark.parametrize("option", ["stop.metric", "objective"])
def test_the_remedy_for_a_metric_that_is_not_measured_works(option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config([f"{option}=macro_f1"])
    remedy = caught.value.errors[0].rpartition("; ")[2].removesuffix(" adds it")
    found = compose_config([f"{option}=macro_f1", remedy])
    assert found.measured == ["accuracy", "loss", "macro_f1"]


def test_accuracy_and_loss_are_measured_whatever_is_asked_for() -> None:
    assert config(metrics=[]).measured == ["accuracy", "loss"]
    assert config(metrics=["top5", "loss", "top5"]).measured == ["accuracy", "loss", "top5"]
    for objective in ("best_accuracy", "worst10", "loss"):
        assert validate(config(metrics=["top5"], objective=objective)) == []


RAISES = """
from dataclasses import dataclass
from fedexp import {base}

@dataclass(frozen=True)
class Rough({base}):
    name: str = "rough"

    def errors(self, plan):
        {body}
"""


@pytest.mark.parametrize("group", ["strategy", "dataset", "partition", "model"])
@pytest.mark.parametrize(
    "body", ["return [plan.no_such_thing]", "yield 1 / 0", "raise KeyError"], ids=str.split
)
def test_a_page_whose_rules_raise_is_a_line_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, body: str
) -> None:
    file, base = tmp_path / "rough.py", group.capitalize()
    file.write_text(RAISES.format(base=base, body=body))
    spec = importlib.util.spec_from_file_location("rough", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "rough", module)
    spec.loader.exec_module(module)
    registry = GROUPS[group]
    registry.register(module.Rough)
    try:
        if group == "dataset":
            monkeypatch.setattr(module.Rough, "facts", Mnist5k.facts)
        lines = validate(config(**{group: module.Rough()}))
    finally:
        registry.forget("rough")
    mine = [line for line in lines if "errors() raised" in line]
    assert len(mine) == 1
    assert mine[0].startswith(f"{group}=rough: errors() raised ")
    assert mine[0].endswith(f"({file}:10)")
    assert "\n" not in mine[0]
