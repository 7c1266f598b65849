"""A study: trials that learn from one another, kept by Optuna where there is a storage.

Optuna is used by its public interface alone, and imported when a study is opened: it takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedexp import metrics
from fedexp.config.schema import Config
from fedexp.config.spaces import Dimension, Value, assigned
from fedexp.core.options import ConfigError, FedexpError
from fedexp.metrics import sign_of

TPE = {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": 5}
"""Optuna's own sampler: it learns from the sixth trial on."""

NO_MATTER = ("name", "backend", "tracking", "checkpoint", "save_every")
"""Options that change no number of a run."""

_TOLD = "fedexp"


def higher_is_better(config: Config) -> bool:
    """Say whether a larger objective is the better one; what is no metric is made of the headline."""
    name = config.objective.removeprefix("best_")
    return sign_of(name if name in metrics.choices() else config.task.headline) > 0


@dataclass(frozen=True)
class StudyPlan:
    """What a study is about; known before anything starts.

    Attributes:
        dimensions: What it chooses.
        config: What all its trials have in common, with some value in place of what is chosen.
        trials: How many are to be made.
        fixed: The overrides that they have in common.
        batch: How many run before it learns from them.
        max_failure_rate: From which share of failures in a batch on it ends.
        storage: Where it is kept: the address of a database; None keeps nothing.
        name: What it is called there.
        sampler: Optuna's, as ``hydra.utils.instantiate`` takes it; with a seed, every trial is the same
            again whether the study went on without a break or not.
    """

    dimensions: tuple[Dimension, ...]
    config: Config
    trials: int
    fixed: tuple[str, ...] = ()
    batch: int = 1
    max_failure_rate: float = 1.0
    storage: str | None = None
    name: str | None = None
    sampler: Mapping[str, Any] = field(default_factory=lambda: {**TPE, "seed": 0})

    @property
    def called(self) -> str:
        """What the study is called where it is kept."""
        config = self.config
        return self.name or f"{config.name}-{config.strategy.name}-{config.objective}"

    def settings(self) -> dict[str, Any]:
        """Return what every trial must have in common: option -> value."""
        chosen = tuple(item.option for item in self.dimensions)
        flat = dict(_flat(asdict(self.config), ""))
        return {
            name: value
            for name, value in flat.items()
            if not _within(name, NO_MATTER) and not _within(name, chosen)
        }


@dataclass(frozen=True)
class Trial:
    """What a study has chosen.

    Attributes:
        number: Counts from 0.
        params: Option -> value.
        value: What came of it; None where it is not over, failed or diverged.
        is_open: Whether nothing has been told of it.
    """

    number: int
    params: Mapping[str, Value]
    value: float | None = None
    is_open: bool = False

    @property
    def overrides(self) -> list[str]:
        """What makes a run of it."""
        return [assigned(option, value) for option, value in self.params.items()]


class Study:
    """Trials of one configuration, in order.

    Args:
        plan: What it is about. A study of that name that is there already goes on.

    Raises:
        ConfigError: If that one is about something else.
        FedexpError: If it cannot be kept where it is to be.
    """

    def __init__(self, plan: StudyPlan) -> None:
        import optuna

        self._plan, self._optuna = plan, optuna
        optuna.logging.disable_default_handler()
        self._distributions = {item.option: _distribution(item) for item in plan.dimensions}
        direction = "maximize" if higher_is_better(plan.config) else "minimize"
        try:
            storage = None if plan.storage is None else _opened(plan.storage)
            if storage is not None:
                _refuse_another(plan, storage)
            self._study = optuna.create_study(
                storage=storage,
                study_name=plan.called,
                direction=direction,
                load_if_exists=True,
                sampler=self._sampler(0),
            )
            told = {"settings": plan.settings(), "space": _space(plan)}
            self._study.set_user_attr(_TOLD, told)
        except ConfigError:
            raise
        except Exception as error:
            raise _unusable(plan.storage, error) from error

    def ask(self) -> Trial:
        """Choose the values of a trial."""
        number = len(self._study.get_trials(deepcopy=False))
        if self._plan.sampler.get("seed") is not None:
            # One that begins anew for every trial: a study that goes on later draws the same.
            self._study.sampler = self._sampler(number)
        trial = self._study.ask(self._distributions)
        return Trial(trial.number, self._ordered(trial.params), is_open=True)

    def tell(self, number: int, value: float | None) -> None:
        """Take in what came of a trial; None, or NaN, counts as worse than every number."""
        if value is not None and math.isfinite(value):
            self._study.tell(number, value)
            return
        # Optuna's samplers leave failed trials out of account, and rank pruned ones last.
        self._study.tell(number, state=self._optuna.trial.TrialState.PRUNED)

    def give_up(self, number: int) -> None:
        """Have a trial count for nothing: it was broken off."""
        self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)

    @property
    def trials(self) -> list[Trial]:
        """All whose values were chosen and that were not given up, in order."""
        state, options = self._optuna.trial.TrialState, set(self._distributions)
        return [
            Trial(item.number, self._ordered(item.params), item.value, item.state == state.RUNNING)
            for item in self._study.get_trials(deepcopy=False)
            if item.state != state.FAIL and set(item.params) == options
        ]

    @property
    def best(self) -> Trial | None:
        """The trial with the best value, the first of several; None if none has one."""
        sign = 1 if higher_is_better(self._plan.config) else -1
        done = [trial for trial in self.trials if trial.value is not None]
        return max(done, key=lambda trial: sign * (trial.value or 0.0), default=None)

    def _ordered(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """Return parameters in the order of the plan; a database has one of its own."""
        return {option: params[option] for option in self._distributions}

    def _sampler(self, number: int) -> Any:
        from hydra.utils import instantiate

        seed = self._plan.sampler.get("seed")
        drawn = {} if seed is None else {"seed": _seed_of(seed, number)}
        return instantiate({**self._plan.sampler, **drawn, "_convert_": "all"})


def _seed_of(seed: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def ensure(plan: StudyPlan) -> None:
    """Refuse a storage that cannot be used, before anything is started; nothing is written.

    Raises:
        ConfigError: If the address is none, or what is kept there is about something else.
        FedexpError: If it cannot be read.
    """
    if plan.storage is None or plan.storage.startswith("redis"):
        return
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(plan.storage)
    except ArgumentError as error:
        told = f"must be an address such as sqlite:///study.db, got {plan.storage!r}"
        raise ConfigError([f"hydra.sweeper.storage {told}"]) from error
    if url.get_backend_name() == "sqlite":
        file = Path(url.database or "")
        if not file.parent.is_dir():
            raise ConfigError([f"hydra.sweeper.storage={plan.storage}: no folder {file.parent}"])
        if not file.is_file():
            return
    try:
        _refuse_another(plan, _opened(plan.storage))
    except ConfigError:
        raise
    except Exception as error:
        raise _unusable(plan.storage, error) from error


def _opened(storage: str) -> Any:
    """Open Optuna's database, and make it where there is none.

    Optuna 2.10 writes the version of its tables without a commit, which SQLAlchemy 1 made by itself and
    SQLAlchemy 2 leaves to the writer. So the tables are made with every statement committed at once.
    """
    from optuna.storages import RDBStorage

    if storage.startswith("redis"):
        return storage
    first = RDBStorage(storage, {"isolation_level": "AUTOCOMMIT"})
    first.remove_session()
    first.engine.dispose()
    return RDBStorage(storage)


def _refuse_another(plan: StudyPlan, storage: Any) -> None:
    """Refuse to go on with a study whose trials could not be compared with those to come.

    Raises:
        ConfigError: With the first option that differs.
    """
    import optuna

    try:
        found = optuna.load_study(study_name=plan.called, storage=storage)
    except KeyError:
        return
    told = found.user_attrs.get(_TOLD)
    where = f"study {plan.called} in {plan.storage}"
    remedy = "choose another hydra.sweeper.study_name"
    if told is None:
        raise ConfigError([f"{where} was not made by fedexp: {remedy}"])
    before, now = told["settings"], plan.settings()
    differ = [name for name in sorted({*before} & {*now}) if before[name] != now[name]]
    if differ:
        name = differ[0]
        raise ConfigError(
            [
                f"{where} has {name}={before[name]} in its trials, not {now[name]}: "
                f"{remedy}, so that trials can be compared"
            ]
        )
    spaces = told["space"], _space(plan)
    for name in set(spaces[0]) & set(spaces[1]):
        kinds = [space[name] for space in spaces]
        if kinds[0] != kinds[1] and any(isinstance(kind, list) for kind in kinds):
            raise ConfigError([f"{where} chose {name} among {kinds[0]}: {remedy}"])


def _space(plan: StudyPlan) -> dict[str, Any]:
    """Return option -> its choices, or a line that says where it lies; as JSON has it."""
    return {item.option: list(item.choices) or str(item) for item in plan.dimensions}


def _unusable(storage: str | None, error: Exception) -> FedexpError:
    where = "Optuna cannot be used" if storage is None else f"hydra.sweeper.storage={storage}"
    return FedexpError(f"{where}: {type(error).__name__}: {str(error).splitlines()[0]}")


def _distribution(item: Dimension) -> Any:
    from optuna import distributions as kinds

    if item.choices:
        return kinds.CategoricalDistribution(item.choices)
    if item.whole:
        ends = int(item.low), int(item.high)
        if item.log:
            return kinds.IntLogUniformDistribution(*ends)
        return kinds.IntUniformDistribution(*ends, step=int(item.step or 1))
    low, high = float(item.low), float(item.high)
    if item.log:
        return kinds.LogUniformDistribution(low, high)
    if item.step is not None:
        return kinds.DiscreteUniformDistribution(low, high, item.step)
    return kinds.UniformDistribution(low, high)


def _flat(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def _within(name: str, owners: Sequence[str]) -> bool:
    return any(name == owner or name.startswith(f"{owner}.") for owner in owners)
