"""What a command of ``fedexp tune`` asks for, checked before anything starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedexp.config.composition import plan
from fedexp.config.folders import stamp
from fedexp.config.hydra_internals import BASIC
from fedexp.config.studies import TPE, StudyPlan
from fedexp.core.options import ConfigError, FedexpError

FILE = "tune.json"
TRIALS, FINAL_SEEDS, HELD_OUT = 12, 3, 0.1


@dataclass(frozen=True)
class Tuning:
    """What is tuned.

    Attributes:
        strategies: Their names, in the order given.
        trials: Of each strategy.
        final_seeds: Runs of each best.
        overrides: What all runs have in common, and ranges of the user's own.
        files: What they are composed with: ``config_dir``.
        spaces: Strategy -> its ranges, a line each.
    """

    strategies: list[str]
    trials: int = TRIALS
    final_seeds: int = FINAL_SEEDS
    overrides: list[str] = field(default_factory=list)
    files: dict[str, str | None] = field(default_factory=dict)
    spaces: dict[str, list[str]] = field(default_factory=dict)


def is_tuning(folder: str) -> bool:
    """Say whether a folder is one of ``fedexp tune``."""
    return (Path(folder) / FILE).is_file()


def asked(words: Sequence[str], config_dir: str | None) -> tuple[Path, Tuning]:
    """Return the folder, new or not, and what is to be done in it.

    Raises:
        ConfigError: With a line for every word that cannot be.
    """
    if len(words) == 1 and "=" not in words[0]:
        return Path(words[0]), _read(Path(words[0]))
    numbers = {"trials": TRIALS, "final_seeds": FINAL_SEEDS}
    strategies: list[str] = []
    overrides, errors = [], []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            errors.append(f"{word}: not of the form option=value; a folder stands alone")
        elif name in numbers:
            if not value.isdecimal() or int(value) < 1:
                errors.append(f"{name} must be a whole number >= 1, got {value!r}")
            else:
                numbers[name] = int(value)
        elif name == "strategy":
            strategies = [part for part in value.strip("[]").split(",") if part]
        elif name.lstrip("+~").startswith("hydra") or word.lstrip("+") == "experiment=tune":
            errors.append(f"{word}: has no place here: fedexp tune makes the trials itself")
        else:
            overrides.append(word)
    if not strategies:
        errors.append("strategy: name one or more, as in strategy=fedavg,scaffold")
    elif len(set(strategies)) < len(strategies):
        errors.append(f"strategy={','.join(strategies)}: each one once")
    if errors:
        raise ConfigError(errors)
    set_before = {word.partition("=")[0].lstrip("+") for word in overrides}
    defaults = {"name": "tune", "dataset.validation": HELD_OUT}
    added = [f"{name}={value}" for name, value in defaults.items() if name not in set_before]
    directory = None if config_dir is None else str(Path(config_dir).absolute())
    tuning = Tuning(
        strategies,
        numbers["trials"],
        numbers["final_seeds"],
        [*added, *overrides],
        {"config_dir": directory},
    )
    return Path("results") / "tune" / stamp(), tuning


def _read(folder: Path) -> Tuning:
    """Return what a folder was made for.

    Raises:
        FedexpError: If it was made for something else.
    """
    path = folder / FILE
    if not path.is_file():
        raise FedexpError(f"{folder}: no such tuning ({FILE} is not there)")
    try:
        return Tuning(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise FedexpError(f"{path} cannot be read: {error}") from error


def made_of(tuning: Tuning, folder: Path) -> dict[str, StudyPlan]:
    """Return every strategy's study.

    Raises:
        ConfigError: With a line for every mistake in any of them.
    """
    sweeper = ["hydra/sweeper=optuna", "hydra.mode=MULTIRUN", "hydra.sweeper.own_space=true"]
    found, errors = {}, []
    for name in tuning.strategies:
        words = [*sweeper, f"strategy={name}", *tuning.overrides]
        try:
            (job,) = plan(words, multirun=True, config_dir=tuning.files.get("config_dir"))
        except ConfigError as error:
            errors += [line for line in error.errors if line not in errors]
            continue
        assert job.study is not None
        if job.launcher != BASIC:
            errors = [
                f"hydra/launcher={job.launcher}: fedexp tune runs trials one after another, since each "
                "learns from those before it: leave out the experiment that chooses this launcher"
            ]
            break
        if job.config.mode != "train":
            errors = [f"mode={job.config.mode} trains nothing that could be tuned"]
            break
        found[name] = replace(
            job.study,
            trials=tuning.trials,
            storage=f"sqlite:///{folder / 'study.db'}",
            name=name,
            sampler={**TPE, "seed": job.config.seed},
        )
    if errors:
        raise ConfigError(errors)
    return found


def seeds(tuning: Tuning, study_plan: StudyPlan) -> list[int]:
    """Return seeds that no trial has seen."""
    first = study_plan.config.seed + 1
    return list(range(first, first + tuning.final_seeds))


def without_seed(lines: Sequence[str]) -> list[str]:
    """Return overrides less the one of the seed."""
    return [line for line in lines if line.partition("=")[0].lstrip("+") != "seed"]
