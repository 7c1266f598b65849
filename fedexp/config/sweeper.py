"""``hydra/sweeper=optuna``: fedexp's own sweeper in place of the plug-in's, under its name.

The plug-in minimises whatever it is told, accuracy too, and takes options that do not exist. This one
takes its direction from the objective, and chooses among what was checked beforehand. The plug-in brings
Optuna and the names of its samplers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from fedexp.config.schema import Config
from fedexp.config.spaces import Dimension, assigned, space
from fedexp.config.studies import Study, StudyPlan, Trial, higher_is_better
from fedexp.core.files import write_whole
from fedexp.core.options import ConfigError, FedexpError

log = logging.getLogger(__name__)

NAME = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
"""What a configuration calls the sweeper: Hydra takes plug-ins from that package only."""


@dataclass
class SweeperConfig:
    """Options of ``hydra.sweeper``.

    ``direction`` follows from ``objective`` and need not be set. With a ``storage``, such as
    ``sqlite:///study.db``, the same command goes on with the study by ``n_trials`` more; ``study_name``
    tells several in one storage apart. ``n_jobs`` trials run before the study learns from them.
    ``own_space`` adds the ranges that the strategy declares. ``params`` holds ranges as a command line
    does.
    """

    _target_: str = NAME
    _recursive_: bool = False
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}])
    sampler: Any = "???"
    direction: str | None = None
    storage: str | None = None
    study_name: str | None = None
    n_trials: int = 20
    n_jobs: int = 1
    max_failure_rate: float = 1.0
    own_space: bool = False
    params: dict[str, Any] | None = None


def register() -> None:
    """Put the options of this sweeper in place of the plug-in's, where that is installed."""
    Plugins.instance()  # imports the plug-ins, which store their own
    store = ConfigStore.instance()
    if "optuna.yaml" in store.list("hydra/sweeper"):
        store.store(group="hydra/sweeper", name="optuna", node=SweeperConfig, provider="fedexp")


def is_study(hydra: Any) -> bool:
    """Say whether a study chooses the jobs of a multirun."""
    return str(hydra.sweeper["_target_"]) == NAME


def study(
    hydra: Any,
    parsed: Sequence[Override],
    parse: Callable[[str], Override],
    compose: Callable[[Sequence[str]], Config],
) -> StudyPlan:
    """Return what a multirun chooses its jobs among.

    Args:
        hydra: Hydra's own part of the configuration.
        parsed: The command's overrides; one replaces what ``hydra.sweeper.params`` says of its option.
        parse: Reads an override, or raises ConfigError.
        compose: Makes a checked configuration of overrides, or raises ConfigError.

    Raises:
        ConfigError: With a line for every mistake in it.
    """
    params = hydra.sweeper.params or {}
    told = {key: parse(f"{key}={value}") for key, value in params.items()}
    told |= {str(item.get_key_element()): item for item in parsed}
    fixed = [item for item in told.values() if not item.is_sweep_override()]
    swept = [item for item in told.values() if item.is_sweep_override()]
    found = space(swept, fixed, compose, own=bool(hydra.sweeper.own_space))
    lines = [str(item.input_line) for item in fixed]
    config = compose([*lines, *(assigned(item.option, item.ends[0]) for item in found)])
    return _plan(hydra, found, config, [line for line in lines if not _is_hydras(line)])


def _is_hydras(line: str) -> bool:
    return line.lstrip("+~").startswith(("hydra.", "hydra/"))


def _plan(
    hydra: Any, dimensions: Sequence[Dimension], config: Config, fixed: Sequence[str]
) -> StudyPlan:
    options = hydra.sweeper
    errors = [
        f"hydra.sweeper.{name} must be >= 1, got {options[name]}"
        for name in ("n_trials", "n_jobs")
        if options[name] < 1
    ]
    if not 0 <= options.max_failure_rate <= 1:
        errors.append(
            f"hydra.sweeper.max_failure_rate must be >= 0 and <= 1, got {options.max_failure_rate}"
        )
    errors += _direction_errors(options.direction, config)
    sampler = OmegaConf.to_container(options.sampler)
    assert isinstance(sampler, dict)
    if str(sampler["_target_"]).endswith("GridSampler"):
        errors.append(
            "hydra/sweeper/sampler=grid: every combination is what fedexp -m runs without a sweeper"
        )
    if errors:
        raise ConfigError(errors)
    return StudyPlan(
        tuple(dimensions),
        config,
        options.n_trials,
        tuple(fixed),
        options.n_jobs,
        options.max_failure_rate,
        options.storage,
        options.study_name,
        {str(key): value for key, value in sampler.items()},
    )


def _direction_errors(direction: str | None, config: Config) -> list[str]:
    """Return a line for a direction that would look for the worst."""
    right = "maximize" if higher_is_better(config) else "minimize"
    if direction in (None, right):
        return []
    return [
        f"hydra.sweeper.direction must be {right} for objective={config.objective}, got {direction}: "
        "leave it out, it follows from the objective"
    ]


class StudySweeper(Sweeper):
    """Hydra sweeper: have a study choose the jobs, and tell it what came of them."""

    plan: ClassVar[StudyPlan | None] = None
    """What the command was found to mean."""

    def __init__(self, **_: Any) -> None:
        self._config: DictConfig | None = None
        self._launcher: Launcher | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Make the launcher."""
        self._config = config
        self._launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run all trials; a job has the number of its trial.

        Raises:
            FedexpError: If too many trials failed, or the study cannot be kept.
        """
        plan = StudySweeper.plan
        assert plan is not None
        assert self._config is not None
        study = Study(plan)
        before = study.trials
        for line in _begun(plan, len(before)):
            log.info(line)
        for first in range(0, plan.trials, plan.batch):
            trials: list[Trial] = []
            try:
                for _ in range(min(plan.batch, plan.trials - first)):
                    trials.append(study.ask())
                self._run(study, trials)
            except BaseException:
                for trial in trials:
                    study.give_up(trial.number)
                raise
        self._conclude(study, plan)

    def _run(self, study: Study, trials: list[Trial]) -> None:
        """Run trials and tell what came of each; those are taken off the list."""
        assert StudySweeper.plan is not None
        fixed = StudySweeper.plan.fixed
        assert self._launcher is not None
        jobs = [[*fixed, *trial.overrides] for trial in trials]
        returns = self._launcher.launch(jobs, initial_job_idx=trials[0].number)
        values = [_value(job) for job in returns]
        failed = sum(value is None for value in values)
        for trial, value in zip(list(trials), values, strict=True):
            study.tell(trial.number, value)
            trials.remove(trial)
        rate = StudySweeper.plan.max_failure_rate
        if failed / len(values) > rate:
            raise FedexpError(
                f"{failed} of {len(values)} trials failed or diverged, more than "
                f"hydra.sweeper.max_failure_rate={rate:g} allows"
            )

    def _conclude(self, study: Study, plan: StudyPlan) -> None:
        assert self._config is not None
        best, trials = study.best, study.trials
        lost = sum(trial.value is None and not trial.is_open for trial in trials)
        if best is None:
            log.info("no trial of %d completed", len(trials))
            return
        rest = f"; {lost} failed or diverged" if lost else ""
        log.info(
            "best of %d trials: %s %.4g in trial %d%s: %s",
            *(len(trials), plan.config.objective, best.value, best.number, rest),
            " ".join(best.overrides),
        )
        content = {"name": "optuna", "best_params": dict(best.params), "best_value": best.value}
        path = Path(self._config.hydra.sweep.dir) / "optimization_results.yaml"
        write_whole(path, yaml.safe_dump(content, sort_keys=False).encode())


def choose_by(plan: StudyPlan) -> None:
    """Have Hydra run a plan where it would make the plug-in's sweeper."""
    StudySweeper.plan = plan
    Plugins.instance().class_name_to_class[NAME] = StudySweeper


def _begun(plan: StudyPlan, before: int) -> list[str]:
    end = "highest" if higher_is_better(plan.config) else "lowest"
    share = plan.config.dataset.validation
    data = (
        f"held-out training examples (dataset.validation={share:g})"
        if share
        else "test data: dataset.validation=0.1 would choose by held-out training examples"
    )
    known = f", after {before} that are kept in {plan.storage}" if before else ""
    return [
        f"{plan.trials} trials for the {end} {plan.config.objective}{known}",
        f"on {data}",
        *(f"  {item}" for item in plan.dimensions),
    ]


def _value(job: JobReturn) -> float | None:
    """Return what a job came to; None if it failed."""
    if job.status is not JobStatus.COMPLETED:
        return None
    value = float(job.return_value)
    return value if math.isfinite(value) else None  # it diverged
