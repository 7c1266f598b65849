"""``fedexp tune``: every strategy at its best, found with the same effort, compared on fresh seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fedexp import runner
from fedexp.config.callbacks import add_to_manifest
from fedexp.config.plugins import load_plugins
from fedexp.config.studies import Study, StudyPlan, Trial
from fedexp.core import owner, signals
from fedexp.core.commands import command, parser_of
from fedexp.core.files import json_bytes, try_folder, unwritable, without_secrets, write_whole
from fedexp.core.options import ConfigError, FedexpError
from fedexp.core.output import complain
from fedexp.federation.conclusion import objective
from fedexp.federation.events import COMPLETED
from fedexp.resume import completed
from fedexp.tune.asked import (
    FILE,
    FINAL_SEEDS,
    TRIALS,
    Tuning,
    asked,
    is_tuning,
    made_of,
    seeds,
    without_seed,
)
from fedexp.tune.told import begun, found, say, winner

__all__ = ["is_tuning", "tune_program"]

DESCRIPTION = """Look for every strategy's best options with equally many trials, then compare the best.

    fedexp tune strategy=fedavg,scaffold,fedadam
    fedexp tune strategy=fedavg,fedprox trials=20 final_seeds=5 rounds=20
    fedexp tune results/tune/FOLDER         go on with one that was stopped

Each strategy chooses among the ranges that it declares (fedexp help strategy), beside
training.learning_rate. A range of yours replaces a declared one
('training.learning_rate=tag(log,interval(0.01,1))'), a value leaves the option out of the choice. Trials
share the seed; the best of each strategy, by `objective` on held-out training examples, is then run
on fresh seeds, and those runs make the table. A trial that fails or diverges counts as the worst.

    FOLDER/tune.json                 what is tuned, with all ranges
    FOLDER/study.db                  the trials so far, as Optuna keeps them
    FOLDER/trials/STRATEGY/NUMBER/   the run of a trial
    FOLDER/final/                    a sweep of the best on fresh seeds
    FOLDER/winners.json              the best, and the commands that run them

Exits with 0 if every strategy has a best trial and its last runs completed, with 1 if not, with 2 if the
command cannot be used (nothing is written).
"""


def tune_program(arguments: Sequence[str]) -> None:
    """Tune, or go on with it, and exit."""
    parser = parser_of("tune", DESCRIPTION)
    parser.add_argument("--config-dir", help="a further folder of YAML files")
    parser.add_argument(
        "words",
        nargs="+",
        metavar="option=value",
        help=f"strategy=a,b; trials={TRIALS}; final_seeds={FINAL_SEEDS}; overrides; or a FOLDER",
    )
    args = parser.parse_intermixed_args(arguments)
    signals.stop_on_signals()
    code, folder = 0, None
    try:
        try:
            load_plugins()
            folder, tuning = asked(args.words, args.config_dir)
            with signals.ending_at_once():
                plans = made_of(tuning, folder)
            tuning = _reserved(folder, tuning, plans)
        except (ConfigError, FedexpError) as error:
            complain("fedexp tune", error)
            runner.leave(2)
        try:
            code = _tune(folder, tuning, plans)
        except (ConfigError, FedexpError) as error:
            complain("fedexp tune", error)
            code = 1
    except KeyboardInterrupt:
        code = signals.exit_code()
        if folder is not None and is_tuning(str(folder)):
            print(f"next: {command('resume', str(folder))}")
    runner.leave(code)


def _reserved(folder: Path, tuning: Tuning, plans: Mapping[str, StudyPlan]) -> Tuning:
    """Take the folder, once it is known that all can run here; write what it is for.

    Raises:
        ConfigError: If the strategies' ranges are not what they were.
        FedexpError: If something is missing here, or another process writes the folder.
    """
    runner.ensure(study.config for study in plans.values())
    spaces = {name: [item.told for item in study.dimensions] for name, study in plans.items()}
    if tuning.spaces and tuning.spaces != spaces:
        raise ConfigError([f"{folder} was begun with other ranges (see {FILE} there): tune anew"])
    if not tuning.spaces:
        try_folder(folder)
    owner.wait_for(folder, print)
    with unwritable(folder):
        owner.reserve(folder)
        tuning = replace(tuning, spaces=spaces)
        shown = replace(tuning, overrides=[without_secrets(word) for word in tuning.overrides])
        write_whole(folder / FILE, json_bytes(asdict(shown)))
    return tuning


def _tune(folder: Path, tuning: Tuning, plans: Mapping[str, StudyPlan]) -> int:
    """Run trials, then the best; return the exit code."""
    for line in begun(folder, tuning, plans):
        say(line)
    winners, lines = {}, []
    for name, study_plan in plans.items():
        study = Study(study_plan)
        _run_trials(folder / "trials" / name, study, study_plan, tuning)
        lines.append(found(name, study, study_plan))
        if study.best is not None:
            winners[name] = study.best
    code = 0 if len(winners) == len(plans) else 1
    told = {name: winner(tuning, plans[name], best) for name, best in winners.items()}
    with unwritable(folder):
        write_whole(folder / "winners.json", json_bytes(told))
    final = folder / "final"
    if winners:
        code = _run_best(final, tuning, plans, winners) or code
    print()
    for line in lines:
        say(line)
    for content in told.values():
        print(f"    {content['command']}")
    print(flush=True)
    if winners:
        code = int(not runner.tell_table(final, ["strategy"])) or code
    return code


def _run_trials(where: Path, study: Study, study_plan: StudyPlan, tuning: Tuning) -> None:
    """Run the trials that are still to be made, one that was stopped first."""
    trials = study.trials
    unfinished = [trial for trial in trials if trial.is_open]
    for count in range(len(trials) - len(unfinished), tuning.trials):
        trial = unfinished.pop(0) if unfinished else study.ask()
        name = study_plan.config.strategy.name
        print()
        say(f"{name}, trial {count + 1} of {tuning.trials}: {' '.join(trial.overrides)}")
        folder = where / str(trial.number)
        overrides = [*study_plan.fixed, *trial.overrides]
        study.tell(trial.number, _value(overrides, tuning, folder, where.parent.parent))


def _value(overrides: Sequence[str], tuning: Tuning, folder: Path, root: Path) -> float | None:
    """Run a trial and return its objective; None if it failed or diverged."""
    with runner.telling_failure(folder):
        run = runner.planned(overrides, tuning.files, folder, runner.sweep_name(root))
        completed(run, root, [])
        if not (folder / "summary.json").is_file():
            return None  # why has been told
        summary = json.loads((folder / "summary.json").read_text())
        if summary["status"] == COMPLETED:
            return objective(run.config, summary)
    return None


def _run_best(
    final: Path,
    tuning: Tuning,
    plans: Mapping[str, StudyPlan],
    winners: Mapping[str, Trial],
) -> int:
    """Run the best of each strategy on fresh seeds; return the exit code."""
    jobs: list[dict[str, Any]] = []
    for name, best in winners.items():
        common = without_seed(plans[name].fixed)
        for seed in seeds(tuning, plans[name]):
            overrides = [*common, *best.overrides, f"seed={seed}"]
            jobs.append(
                {
                    "folder": f"{len(jobs)}-{name}-s{seed}",
                    "overrides": overrides,
                    "files": tuning.files,
                }
            )
    with unwritable(final):
        shown = [
            {**job, "overrides": [without_secrets(line) for line in job["overrides"]]}
            for job in jobs
        ]
        add_to_manifest(final, shown)
    print(f"\nthe best of each strategy on {tuning.final_seeds} fresh seeds", flush=True)
    code = 0
    for job in jobs:
        where = final / job["folder"]
        with runner.telling_failure(where):
            run = runner.planned(
                job["overrides"], tuning.files, where, runner.sweep_name(final.parent)
            )
            code = code if completed(run, final, []) else 1
    return code
