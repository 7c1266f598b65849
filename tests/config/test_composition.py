from __future__ import annotations

import pytest

from fedexp.config.backend import FlowerBackend
from fedexp.config.composition import check_command, compose_config
from fedexp.core.options import ConfigError
from fedexp.partitions.iid import Iid
from fedexp.strategies.local_only import LocalOnly


def _errors(*overrides: str, multirun: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_command(overrides, multirun=multirun)
    return caught.value.errors


def test_overrides_reach_the_configuration() -> None:
    config = compose_config(["partition=iid", "clients=cross_device", "clients.num=50", "seed=3"])
    assert config.partition == Iid()
    assert (config.clients.num, config.clients.fraction_train, config.seed) == (50, 0.1, 3)
    assert compose_config(["backend=flower"]).backend == FlowerBackend()


def test_several_mistakes_are_named_in_one_go() -> None:
    errors = _errors("rounds=0", "training.batchsize=32", "clients=50", "+foo=1", "seed=abc")
    assert len(errors) == 5
    text = "\n".join(errors)
    for part in (
        "clients=50: a group is chosen by name (cross_device, cross_silo, lesson)",
        "the count is clients.num=50",
        "training.batchsize: no such option; did you mean batch_size?",
        "foo: no such option; it must be one of",
        "seed=abc: Value 'abc' of type 'str' could not be converted to Integer",
        "rounds must be >= 1, got 0",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("strategi=fedavg", "strategi: no such option; did you mean strategy?"),
        ("clients.nun=5", "clients.nun: no such option; did you mean num?"),
        ("backend.worker=2", "backend.worker: no such option; did you mean workers?"),
        ("dataset=fmnist", "dataset must be one of cifar10, cifar100, emnist, "),
        ("+unknown.key=1", "unknown: no such option; it must be one of"),
        ("++unknown.key=1", "unknown: no such option; it must be one of"),
        ("~training", "training cannot be removed"),
        ("~training.momentum", "training.momentum cannot be removed"),
        ("clients=50", "the count is clients.num=50"),
        ("clients=[50]", "clients=[50]: "),
        ("seed=range(0,3)", "several values need a multirun (-m)"),
        ("strategy=fedavgg", "strategy must be one of bulyan, centralized,"),
        ("+experiment=lessen", "experiment must be one of lesson"),
        ("strategy.q=1", "strategy.q: no such option; it must be one of name"),
        ("~seed", "seed cannot be removed"),
        ("+training.x=1", "training.x: no such option"),
        ("nonsense", "nonsense: not of the form option=value"),
        ("model.hidden=[1", "model.hidden=[1: not of the form option=value"),
        ("strategy=fedavg,local_only", "several values need a multirun (-m)"),
        ("partition.exclude=3", "partition.exclude=3: "),
        ("name=${nope}", "nope"),
    ],
)
def test_one_mistake_is_one_line(override: str, message: str) -> None:
    (line,) = _errors(override)
    assert message in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "override",
    [
        "strategy.name=local_only",
        "backend.name=inline",
        "partition.name=iid",
    ],
)
def test_a_name_cannot_say_another_thing_than_what_runs(override: str) -> None:
    # The name labels the results; a group is chosen by strategy=, backend=, partition=.
    (line,) = _errors(override)
    assert override.split("=")[0] in line


def test_a_mistake_beside_a_sweep_that_lacks_its_multirun_is_named_too() -> None:
    errors = _errors("seed=1,2", "rounds=0")
    assert sorted(errors) == [
        "rounds must be >= 1, got 0",
        "seed=1,2: several values need a multirun (-m)",
    ]


def test_swept_values_are_checked_beside_a_bad_group() -> None:
    errors = _errors("clients=50", "rounds=1,0", multirun=True)
    assert len(errors) == 2
    assert "rounds must be >= 1, got 0" in errors


def test_every_job_of_a_multirun_is_checked_before_the_first_runs() -> None:
    errors = _errors("rounds=1,0", "training.learning_rate=0.1,-1", multirun=True)
    assert errors == [
        "training.learning_rate must be > 0, got -1.0",
        "rounds must be >= 1, got 0",
    ]


def test_jobs_come_in_hydras_order() -> None:
    jobs = check_command(["strategy=fedavg,local_only", "seed=0,1"], multirun=True)
    assert [(job.strategy.name, job.seed) for job in jobs] == [
        ("fedavg", 0),
        ("fedavg", 1),
        ("local_only", 0),
        ("local_only", 1),
    ]


def test_the_lesson_is_two_runs_by_itself() -> None:
    federated, isolated = check_command(["+experiment=lesson"], multirun=False)
    assert (federated.strategy.name, federated.num_rounds) == ("fedavg", 3)
    assert (isolated.strategy, isolated.num_rounds) == (LocalOnly(), 1)
    assert federated.dataset.name == "mnist"
    assert federated.training.local_epochs == 10
    for name in ("fedavg", "local_only"):
        (only,) = check_command(["+experiment=lesson", f"strategy={name}"], multirun=False)
        assert (only.strategy.name, only.dataset.name) == (name, "mnist")
