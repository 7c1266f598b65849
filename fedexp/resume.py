"""``fedexp resume``: go on with a run, or with a sweep, that did not come to its end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedexp import runner
from fedexp.analysis.results import environment
from fedexp.config.callbacks import jobs_in
from fedexp.config.hydra_memory import composing_once
from fedexp.config.plugins import load_plugins
from fedexp.config.saved import saved_config
from fedexp.config.schema import Config
from fedexp.core import checkpoints, garbage, owner, signals
from fedexp.core.commands import parser_of
from fedexp.core.files import SWEEP_FILE, unwritable
from fedexp.core.options import ConfigError, FedexpError
from fedexp.core.output import complain
from fedexp.core.tables import Position, content_at
from fedexp.federation.events import COMPLETED, DIVERGED, RunInfo
from fedexp.tracking.identity import FREE, differences, is_free

DESCRIPTION = """Go on with a run or a sweep that did not come to its end.

    fedexp resume results/lesson/2026-11-26_10-00-00-1a2b
    fedexp resume results/lesson/2026-11-26_10-00-00-1a2b rounds=200
    python mine.py resume results/...      where a script of your own began it

A run goes on from its last checkpoint and ends with the same bits as if it had never stopped. One that
is complete is left alone unless it is to have more rounds. In a sweep, complete runs are left alone, the
others go on or are run, and the table follows. Exits with 0 if all are complete at the end, with 1 if a
run failed, with 2 if something here cannot go on.
"""


@dataclass(frozen=True)
class Rest:
    """What is left to do in a folder.

    Attributes:
        runs: The runs that are not complete.
        sweep: The sweep's folder; None where the folder is a run's.
    """

    runs: list[RunInfo]
    sweep: Path | None = None


def resume_program(arguments: Sequence[str]) -> None:
    """Resume what is in a folder, and exit."""
    parser = parser_of("resume", DESCRIPTION)
    parser.add_argument("folder", type=Path, help="a run's folder, or a sweep's")
    parser.add_argument(
        "overrides", nargs="*", default=[], help="such as rounds=200 or backend=inline"
    )
    args = parser.parse_args(arguments)
    signals.stop_on_signals()
    code = 0
    try:
        try:
            rest = _prepared(args.folder, args.overrides)
        except (ConfigError, FedexpError) as error:
            complain("fedexp resume", error)
            runner.leave(2)
        for run in rest.runs:
            code = code if completed(run, rest.sweep, args.overrides) else 1
            garbage.settle()
    except KeyboardInterrupt:
        code = signals.exit_code()
    if rest.sweep is not None:
        code = code or int(not runner.tell_table(rest.sweep))
    runner.leave(code)


def completed(run: RunInfo, sweep: Path | None, overrides: Sequence[str]) -> bool:
    """Run what is left of a run; return whether it completed.

    A run of a sweep may have waited for hours, and somebody may have gone on with it alone meanwhile.
    So it is taken and looked at once more: what was read before would bring back an earlier state.
    """
    if sweep is None:  # its folder was taken before it was read
        return runner.run_logged(run)
    try:
        with runner.telling_failure(run.folder):
            with unwritable(run.folder):
                owner.reserve(run.folder)
            now = _as_it_is_now(run, overrides)
            return now is None or runner.run_logged(now)
    finally:
        owner.release(run.folder)
    return False


def _as_it_is_now(run: RunInfo, overrides: Sequence[str]) -> RunInfo | None:
    """Return what is left of a run that was read before; None if it is complete by now."""
    if not (run.folder / "config.yaml").is_file():
        return run  # not even begun
    now = _rest_of_run(run.folder, overrides, run.sweep)
    if now is not None:
        _refuse_other_ground(now)
    return now


def _prepared(folder: Path, overrides: Sequence[str]) -> Rest:
    """Return what is left to do, once it is known that it can be done here.

    Raises:
        ConfigError: If something that changes results differs from before.
        FedexpError: If there is nothing here that can be resumed, or another process writes it.
    """
    load_plugins()
    _refuse_changes(overrides)
    owner.wait_for(folder, print)
    with unwritable(folder):
        if (folder / "config.yaml").is_file() or (folder / SWEEP_FILE).is_file():
            owner.reserve(folder)
    rest = _rest(folder, overrides)
    runner.ensure(run.config for run in rest.runs)
    _all_or_errors(rest.runs, _refuse_other_ground)
    return rest


def _rest(folder: Path, overrides: Sequence[str]) -> Rest:
    if (folder / "config.yaml").is_file():
        run = _rest_of_run(folder, overrides, None)
        if run is None:
            print(f"{folder}: complete already")
        return Rest([] if run is None else [run])
    if (folder / SWEEP_FILE).is_file():
        return Rest(_rest_of_sweep(folder, overrides), folder)
    if any(folder.glob("*/config.yaml")):
        raise FedexpError(
            f"{folder} is a sweep that chose its runs as it went: resume its runs one by one, and start "
            "its command again for more (an Optuna study goes on if it has hydra.sweeper.storage)"
        )
    raise FedexpError(f"{folder}: neither a run (config.yaml) nor a sweep ({SWEEP_FILE}) is here")


def _rest_of_sweep(folder: Path, overrides: Sequence[str]) -> list[RunInfo]:
    """Return the jobs of a sweep that are not complete."""
    jobs, name = jobs_in(folder), runner.sweep_name(folder)

    def rest(job: dict[str, Any]) -> RunInfo | None:
        where = folder / job["folder"]
        if (where / "config.yaml").is_file():
            owner.refuse_taken(where)
            return _rest_of_run(where, overrides, name)
        return runner.planned([*job["overrides"], *overrides], job["files"], where, name)

    with composing_once():
        left = [run for run in _all_or_errors(jobs, rest) if run is not None]
    print(f"{folder}: {len(jobs) - len(left)} of {len(jobs)} runs are complete, {len(left)} to go")
    return left


def _rest_of_run(folder: Path, overrides: Sequence[str], sweep: str | None) -> RunInfo | None:
    """Return a run that is to go on; None if it is complete."""
    config = saved_config(folder, overrides)
    state, problems = checkpoints.latest(folder)
    for problem in problems:
        after = "the start" if state is None else f"round {state['round']}"
        print(f"fedexp resume: {problem}; the run goes on from {after}", file=sys.stderr)
    if _is_complete(folder, config, state):
        return None
    if state is not None and state["round"] > config.num_rounds:
        raise ConfigError(
            [f"{folder} has {state['round']} rounds already, rounds={config.num_rounds} are fewer"]
        )
    told = _overrides_of(folder)
    return RunInfo(config, folder, [*told, *overrides], sweep, resume=state, again=state is None)


def _is_complete(folder: Path, config: Config, state: dict[str, Any] | None) -> bool:
    """Say whether a run has come to its end, also where it is to have more rounds than before."""
    if config.mode == "partition":
        return (folder / "partition.json").is_file()
    try:
        summary = json.loads((folder / "summary.json").read_text())
    except (OSError, ValueError):
        return False
    if summary.get("status") == DIVERGED:
        return True  # another time it would again
    if summary.get("status") != COMPLETED:
        return False
    if summary.get("stopped_early") or summary["rounds"] >= config.num_rounds:
        return True
    if state is None:
        raise FedexpError(
            f"{folder} is complete and has no checkpoint to go on from: run it again with "
            f"rounds={config.num_rounds} in another folder"
        )
    return False


def _overrides_of(folder: Path) -> list[str]:
    try:
        return list(environment(folder).get("overrides") or [])
    except (OSError, ValueError):
        return []  # written before the first round, and for people to read


def _refuse_changes(overrides: Sequence[str]) -> None:
    errors = []
    for line in overrides:
        option, equals, _ = line.partition("=")
        if not equals:
            errors.append(f"{line}: not of the form option=value")
        elif not is_free(option):
            errors.append(
                f"{line}: would change the results; what may differ from before is {', '.join(FREE)}"
            )
    if errors:
        raise ConfigError(errors)


def _refuse_other_ground(run: RunInfo) -> None:
    """Refuse to go on where the numbers would not be those of one run.

    Raises:
        ConfigError: With a line for everything that differs.
        FedexpError: If a file of the run was removed or changed.
    """
    if run.resume is None:
        return
    found = differences(run.resume["identity"], run.config)
    if found:
        raise ConfigError([f"{run.folder} cannot go on: {line}" for line in found])
    for name, position in run.resume["files"].items():
        content_at(run.folder / name, Position(**position))


def _all_or_errors(items: Sequence[Any], step: Callable[[Any], Any]) -> list[Any]:
    """Do the same for several runs, and name what is wrong with each.

    Raises:
        ConfigError: With the lines of all.
    """
    done, errors = [], []
    for item in items:
        try:
            done.append(step(item))
        except ConfigError as error:
            errors += error.errors
        except FedexpError as error:
            errors += str(error).splitlines()
    if errors:
        raise ConfigError(errors)
    return done
