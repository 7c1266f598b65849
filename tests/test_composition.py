from __future__ import annotations

import pytest

from fedexp.composition import check_command, compose_config
from fedexp.config import ConfigError, FlowerBackend, IidPartition, LocalOnlyStrategy


def _errors(*overrides: str, multirun: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_command(overrides, multirun=multirun)
    return caught.value.errors


def test_overrides_reach_the_configuration() -> None:
    config = compose_config(["partition=iid", "clients=cross_device", "clients.num=50", "seed=3"])
    assert config.partition == IidPartition()
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
        ("strategy=fedavgg", "strategy must be one of fedavg, local_only"),
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
    assert (isolated.strategy, isolated.num_rounds) == (LocalOnlyStrategy(), 1)
    assert federated.dataset.name == "mnist"
    assert federated.training.local_epochs == 10
    assert len(check_command(["+experiment=lesson", "strategy=fedavg"], multirun=False)) == 1
