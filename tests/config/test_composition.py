from __future__ import annotations

from pathlib import Path

import pytest

from fedexp.config.backend import FlowerBackend, InlineBackend
from fedexp.config.composition import compose_config, plan
from fedexp.core.options import ConfigError
from fedexp.partitions.iid import Iid
from fedexp.strategies.fedprox import FedProx
from fedexp.strategies.local_only import LocalOnly


def _errors(*overrides: str, multirun: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        plan(overrides, multirun=multirun)
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
        "seed must be a whole number, got 'abc'",
        "rounds must be >= 1, got 0",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("strategi=fedavg", "strategi: no such option; did you mean strategy?"),
        ("clients.nun=5", "clients.nun: no such option; did you mean num?"),
        ("backend.worker=2", "backend.worker: no such option; did you mean workers?"),
        ("dataset=fmnist", "dataset must be one of breast_cancer, churn, cifar10, "),
        ("+unknown.key=1", "unknown: no such option; it must be one of"),
        ("++unknown.key=1", "unknown: no such option; it must be one of"),
        ("~training", "training cannot be removed"),
        ("~training.momentum", "training.momentum cannot be removed"),
        ("clients=50", "the count is clients.num=50"),
        ("clients=[50]", "clients=[50]: "),
        ("seed=range(0,3)", "several values need a multirun (-m)"),
        ("strategy=fedavgg", "strategy must be one of afl, apfl, bulyan,"),
        ("+experiment=lessen", "experiment must be one of lesson"),
        ("strategy.q=1", "strategy.q: no such option; this strategy has none"),
        ("clients.num=1.5", "clients.num must be a whole number, got '1.5'"),
        ("training.momentum=much", "training.momentum must be a number, got 'much'"),
        ("metrics=accuracy", "metrics must be a list, as in 'metrics=[accuracy]'"),
        ("~seed", "seed cannot be removed"),
        ("+training.x=1", "training.x: no such option"),
        ("nonsense", "nonsense: not of the form option=value"),
        ("model.hidden=[1", "model.hidden=[1: not of the form option=value"),
        ("strategy=fedavg,local_only", "several values need a multirun (-m)"),
        ("partition.exclude=3", "partition.exclude must be a list, as in 'partition.exclude=[3]'"),
        ("metrics=[[1]]", "metrics must be among accuracy, "),
        ("name=${nope}", "nope"),
        ("partition.exclude=${seed}", "partition.exclude points to 0, which is no value for it"),
        ("partition.exclude=[${seed},[1],[2]]", "partition.exclude[0] points to 0"),
        ("metrics=${seed}", "metrics points to 0"),
        ("+backend.addres=${nope}", "backend.addres: no such option; did you mean address?"),
        ("hydra.sweeper.params={seed:'1,2'}", "set it in a file of --config-dir"),
        ("+hydra.sweeper.params.seed='1,2'", "set it in a file of --config-dir"),
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
    jobs = plan(["strategy=fedavg,local_only", "seed=0,1"], multirun=True)
    assert [(job.config.strategy.name, job.config.seed) for job in jobs] == [
        ("fedavg", 0),
        ("fedavg", 1),
        ("local_only", 0),
        ("local_only", 1),
    ]


def test_a_job_knows_the_overrides_that_make_it() -> None:
    jobs = plan(["strategy=fedavg,local_only", "rounds=2"], multirun=True)
    assert [job.overrides for job in jobs] == [
        ["strategy=fedavg", "rounds=2"],
        ["strategy=local_only", "rounds=2"],
    ]
    assert [job.chosen_later for job in jobs] == [False, False]
    for job in jobs:
        assert compose_config(job.overrides) == job.config


def test_a_sweeper_that_learns_is_one_job_that_is_chosen_later() -> None:
    (job,) = plan(["experiment=tune"], multirun=False)
    assert job.chosen_later
    assert (job.config.name, job.config.strategy.name) == ("tune", "fedadam")


def test_the_lesson_is_two_runs_by_itself() -> None:
    federated, isolated = plan(["experiment=lesson"], multirun=False)
    assert (federated.config.strategy.name, federated.config.num_rounds) == ("fedavg", 3)
    assert (isolated.config.strategy, isolated.config.num_rounds) == (LocalOnly(), 1)
    assert federated.config.dataset.name == "mnist"
    assert federated.config.training.local_epochs == 10
    for name in ("fedavg", "local_only"):
        (only,) = plan(["experiment=lesson", f"strategy={name}"], multirun=False)
        assert (only.config.strategy.name, only.config.dataset.name) == (name, "mnist")


@pytest.mark.parametrize(
    ("now", "before"),
    [
        (["debug=smoke"], ["+debug=smoke"]),
        (["experiment=lesson", "rounds=7"], ["rounds=7", "+experiment=lesson"]),
        (["debug=smoke", "experiment=lesson"], ["+experiment=lesson", "+debug=smoke"]),
    ],
)
def test_a_slot_may_be_filled_as_a_key_once_was_added(now: list[str], before: list[str]) -> None:
    new, old = (plan(words, multirun=False) for words in (now, before))
    assert [job.config for job in new] == [job.config for job in old]


def test_debug_wins_over_an_experiment_and_the_command_over_both() -> None:
    jobs = plan(["experiment=lesson", "debug=smoke"], multirun=False)
    assert [(j.config.strategy.name, j.config.dataset.name) for j in jobs] == [
        ("fedavg", "mnist"),
        ("local_only", "mnist"),
    ]
    for job in jobs:
        config = job.config
        assert (config.name, config.rounds, config.training.local_epochs) == ("smoke", 1, 1)
        assert config.backend == InlineBackend()
        assert config.isolated_rounds == 1  # the experiment's
    assert compose_config(["rounds=5", "debug=smoke"]).rounds == 5


def test_several_experiments_may_be_swept() -> None:
    jobs = plan(["experiment=mcmahan_2nn,niid_fmnist"], multirun=True)
    assert [job.config.name for job in jobs] == ["mcmahan_2nn", "niid_fmnist"]


def _preset(folder: Path, file: str, *lines: str) -> str:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return str(folder)


def test_a_folder_of_ones_own_has_further_choices(tmp_path: Path) -> None:
    folder = _preset(tmp_path, "strategy/gentle.yaml", "defaults: [fedprox]", "proximal_mu: 0.01")
    (job,) = plan(["strategy=gentle"], multirun=False, config_dir=folder)
    assert job.config.strategy == FedProx(proximal_mu=0.01)
    jobs = plan(["strategy=gentle,fedavg"], multirun=True, config_dir=folder)
    assert [job.config.strategy.name for job in jobs] == ["fedprox", "fedavg"]
    (line,) = _errors("strategy=gentle")  # which is there only where it is searched
    assert line.startswith("strategy=gentle: strategy must be one of afl, ")


def test_a_mistake_beside_a_choice_of_ones_own_is_the_only_line(tmp_path: Path) -> None:
    folder = _preset(tmp_path, "strategy/gentle.yaml", "defaults: [fedprox]", "proximal_mu: 0.01")
    with pytest.raises(ConfigError) as caught:
        plan(["strategy=gentle", "training.batchsize=32"], multirun=False, config_dir=folder)
    assert caught.value.errors == [
        "training.batchsize: no such option; did you mean batch_size?",
    ]
    with pytest.raises(ConfigError) as caught:
        plan(["strategy=gentel"], multirun=False, config_dir=folder)
    (line,) = caught.value.errors
    assert "gentle," in line.split()


def test_a_folder_of_ones_own_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        plan([], multirun=False, config_dir="absent")
    assert caught.value.errors == ["--config-dir absent: no such folder"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["proximal_my: 0.01"], "proximal_my"),
        (["proximal_mu: much"], "proximal_mu"),
        (["proximal_mu: [1"], "bad.yaml"),
    ],
)
def test_a_mistake_in_a_file_of_ones_own_is_one_line(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    folder = _preset(tmp_path, "strategy/bad.yaml", "defaults: [fedprox]", *lines)
    with pytest.raises(ConfigError) as caught:
        plan(["strategy=bad"], multirun=False, config_dir=folder)
    (line,) = caught.value.errors
    assert message in line
    assert "\n" not in line
