"""What a study may choose, which way is better, and that it goes on where it was kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedexp.config.composition import plan
from fedexp.config.schema import GROUPS, Config
from fedexp.config.spaces import own_space
from fedexp.config.studies import Study, StudyPlan, ensure, higher_is_better
from fedexp.config.validation import validate
from fedexp.core.options import ConfigError, FedexpError, Span, ranged
from fedexp.strategies import REGISTRY, Strategy
from fedexp.testing.tiny import TinyNumbers

HYDRAS = ["hydra/sweeper=optuna", "hydra.mode=MULTIRUN"]
RATE = "training.learning_rate=tag(log,interval(0.001,0.3))"


@pytest.fixture
def mine() -> Iterator[str]:
    """Register a strategy of somebody's own, with a range for one of its two options."""

    @REGISTRY.register
    @dataclass(frozen=True)
    class Mine(Strategy):
        name: str = "mine"
        pull: float = ranged(0.1, ge=0, le=1, tuned=Span(0.0, 1.0))
        steps: int = ranged(2, ge=1)

    yield "mine"
    REGISTRY.forget("mine")


def _study(*words: str) -> StudyPlan:
    (job,) = plan([*HYDRAS, *words], multirun=False)
    assert job.study is not None
    return job.study


def _errors(*words: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        _study(*words)
    return caught.value.errors


@pytest.mark.parametrize(
    ("objective", "higher"),
    [("accuracy", True), ("loss", False), ("ece", False), ("worst10", True), ("macro_f1", True)],
)
def test_the_direction_follows_from_the_objective(objective: str, higher: bool) -> None:
    assert higher_is_better(Config(objective=objective)) is higher


@pytest.mark.parametrize(
    ("objective", "higher"),
    [("auto", False), ("best_rmse", False), ("worst10", False), ("r2", True)],
)
def test_the_direction_is_that_of_the_task(objective: str, higher: bool) -> None:
    assert higher_is_better(Config(dataset=TinyNumbers(), objective=objective)) is higher


@pytest.mark.parametrize("name", GROUPS["strategy"].choices())
def test_every_strategy_has_a_space_within_its_own_ranges(name: str) -> None:
    config = dataclasses.replace(Config(), strategy=GROUPS["strategy"].get(name)())
    space = list(own_space(config))
    assert space[0].option == "training.learning_rate"
    for item in space:
        part, option = item.option.split(".")
        for end in item.ends:
            page = dataclasses.replace(getattr(config, part), **{option: end})
            changed = dataclasses.replace(config, **{part: page})
            assert not [line for line in validate(changed) if line.startswith(item.option)]


def test_experiment_tune_takes_the_space_of_its_strategy() -> None:
    (job,) = plan(["experiment=tune", "strategy=fedavgm"], multirun=False)
    assert job.study is not None
    assert [item.option for item in job.study.dimensions] == [
        "training.learning_rate",
        "strategy.server_learning_rate",
        "strategy.server_momentum",
    ]
    assert job.study.trials == 12


def test_what_is_set_is_not_chosen_and_a_range_given_replaces_the_declared_one() -> None:
    words = ["training.learning_rate=0.1", "strategy.eta=interval(0.1,0.2)"]
    (job,) = plan(["experiment=tune", *words], multirun=False)
    assert job.study is not None
    (only,) = job.study.dimensions
    assert (only.option, only.low, only.high, only.log) == ("strategy.eta", 0.1, 0.2, False)
    assert job.study.fixed == ("experiment=tune", "training.learning_rate=0.1")


def test_a_strategy_of_ones_own_has_what_it_declares(mine: str) -> None:
    (job,) = plan(["experiment=tune", f"strategy={mine}"], multirun=False)
    assert job.study is not None
    options = [item.option for item in job.study.dimensions]
    assert options == ["training.learning_rate", "strategy.pull"]


def test_numbers_are_whole_where_the_option_is() -> None:
    words = ["training.local_epochs=interval(1,5)", "training.momentum=interval(0,0.9)"]
    epochs, momentum = _study(*words, "training.batch_size=range(16,65,16)").dimensions[:2]
    assert (epochs.whole, epochs.ends, momentum.whole) == (True, (1, 5), False)
    batch = _study("training.batch_size=range(16,65,16)").dimensions[0]
    assert (batch.whole, batch.low, batch.high, batch.step) == (True, 16, 64, 16)


@pytest.mark.slow  # each composes several times: 0.5 s
@pytest.mark.parametrize(
    ("words", "start"),
    [
        ([], "there is nothing to choose: "),
        (["training.learning_rat=interval(0.1,1)"], "training.learning_rat=interval(0.1,1): "),
        (
            ["training.learning_rate=interval(-1,1)"],
            "training.learning_rate=interval(-1,1): training.learning_rate must be > 0, got -1",
        ),
        (
            ["training.momentum=interval(0.1,1)"],
            "training.momentum=interval(0.1,1): training.momentum must be < 1, got 1",
        ),
        (
            ["training.local_epochs=interval(1.5,2.5)"],
            "training.local_epochs=interval(1.5,2.5): training.local_epochs must be a whole number",
        ),
        (["strategy=fedavg,nope"], "strategy=fedavg,nope: strategy=nope: strategy must be one of "),
        (
            ["training.optimizer=sgd,nope"],
            "training.optimizer=sgd,nope: training.optimizer must be one of ",
        ),
        (["seed=0,1", RATE], "seed=0,1: all trials of a study have the same seed; fedexp tune "),
        (["training.momentum=interval(0.9,0.1)"], "training.momentum=interval(0.9,0.1): a range "),
        (["strategy=glob(fed*)"], "strategy=glob(fed*): a study needs the values one by one"),
        (
            ["training.momentum=tag(log,interval(0,0.9))"],
            "training.momentum=tag(log,interval(0,0.9)): a logarithmic range begins above 0",
        ),
        ([RATE, "hydra.sweeper.direction=minimize"], "hydra.sweeper.direction must be maximize "),
        (
            [RATE, "objective=loss", "hydra.sweeper.direction=maximize"],
            "hydra.sweeper.direction must be minimize ",
        ),
        ([RATE, "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be >= 1, got 0"),
        ([RATE, "hydra/sweeper/sampler=grid"], "hydra/sweeper/sampler=grid: every combination "),
        (["experiment=tune", "strategy=fedavg,scaffold"], "strategy=fedavg,scaffold: every "),
        ([RATE, "hydra.sweeper.custom_search_space=os.system"], "hydra.sweeper.custom_search_"),
    ],
)
def test_what_cannot_be_chosen_is_refused_in_a_line(words: list[str], start: str) -> None:
    errors = _errors(*words)
    assert errors[0].startswith(start)
    assert len(errors) == ("must be a whole number" in start) + 1  # both ends are wrong


def test_an_interval_needs_a_study() -> None:
    with pytest.raises(ConfigError) as caught:
        plan([RATE], multirun=True)
    assert caught.value.errors[0].startswith(f"{RATE}: hydra/sweeper=optuna chooses from ")


def test_every_mistake_is_named() -> None:
    errors = _errors("training.learning_rate=interval(0,1)", "training.momentum=interval(0.1,2)")
    assert [line.partition("=")[0] for line in errors] == [
        "training.learning_rate",
        "training.momentum",
    ]


@pytest.mark.slow  # imports Optuna and makes databases: 5 s
def test_a_stored_study_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    def chosen(storage: str | None, *stops: int) -> list[object]:
        words = [RATE, "strategy=fedavg,scaffold", "hydra.sweeper.sampler.seed=3"]
        planned = dataclasses.replace(_study(*words), storage=storage)
        found: list[object] = []
        for stop in stops:
            ensure(planned)
            study = Study(planned)
            while len(study.trials) < stop:
                trial = study.ask()
                rate = trial.params["training.learning_rate"]
                assert isinstance(rate, float)
                study.tell(trial.number, None if trial.number == 2 else -abs(rate - 0.1))
            found = [(trial.number, dict(trial.params), trial.value) for trial in study.trials]
        return found

    at_once = chosen(None, 12)
    assert chosen(f"sqlite:///{tmp_path}/study.db", 3, 7, 12) == at_once
    assert len(at_once) == 12


@pytest.mark.slow  # imports Optuna and makes databases: 5 s
def test_a_stored_study_of_something_else_is_refused(tmp_path: Path) -> None:
    kept = f"hydra.sweeper.storage=sqlite:///{tmp_path}/study.db"
    Study(_study(RATE, kept))
    ensure(_study(RATE, kept, "tracking.mode=offline", "tracking=wandb", "backend=inline"))
    with pytest.raises(ConfigError) as caught:
        ensure(_study(RATE, kept, "rounds=5"))
    assert "rounds=3 in its trials, not 5" in caught.value.errors[0]
    ensure(_study(RATE, kept, "rounds=5", "hydra.sweeper.study_name=other"))
    (tmp_path / "text.db").write_text("no database, but long enough to look like one" * 9)
    with pytest.raises(FedexpError, match=r"text\.db"):
        ensure(_study(RATE, f"hydra.sweeper.storage=sqlite:///{tmp_path}/text.db"))


@pytest.mark.parametrize(
    ("storage", "start"),
    [
        ("study.db", "hydra.sweeper.storage must be an address such as sqlite:///study.db, got "),
        ("sqlite:///nowhere/study.db", "hydra.sweeper.storage=sqlite:///nowhere/study.db: no "),
    ],
)
def test_a_storage_that_cannot_be_is_refused_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, start: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        ensure(StudyPlan((), Config(), trials=1, storage=storage))
    assert caught.value.errors[0].startswith(start)
    assert list(tmp_path.iterdir()) == []
