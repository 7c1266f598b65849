"""``fedexp resume``: go on with a run, or with a sweep, that did not come to its end."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedexp import runner
from fedexp.analysis.results import environment
from fedexp.config.callbacks import SWEEP_FILE
from fedexp.config.plugins import plugins_in_use
from fedexp.config.saved import saved_config
from fedexp.config.schema import Config
from fedexp.core import checkpoints, owner, signals
from fedexp.core.files import without_secrets
from fedexp.core.options import ConfigError, FedexpError
from fedexp.federation.events import COMPLETED, DIVERGED, RunInfo

DESCRIPTION = """Go on with a run or a sweep that did not come to its end.

    fedexp resume results/lesson/2026-11-26_10-00-00-1a2b
    fedexp resume results/lesson/2026-11-26_10-00-00-1a2b rounds=200

A run goes on from its last checkpoint and ends with the same bits as if it had never stopped. One that
is complete is left alone unless it is to have more rounds. In a sweep, complete runs are left alone, the
others go on or are run. Exits with 0 if all are complete at the end, with 1 if a run failed, with 2 if
nothing here can go on.
"""

FREE = ("rounds", "isolated_rounds", "backend", "tracking", "checkpoint", "name")
"""Options that may differ from before: they change no number of the rounds that are done."""


def resume_program(arguments: Sequence[str]) -> None:
    """Resume what is in a folder, and exit."""
    parser = argparse.ArgumentParser(
        prog="fedexp resume",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="a run's folder, or a sweep's")
    parser.add_argument("overrides", nargs="*", help="such as rounds=200 or backend=inline")
    args = parser.parse_args(arguments)
    signals.stop_on_signals()
    try:
        runs = _runs(args.folder, args.overrides)
        runner.ensure(run.config for run in runs)
    except (ConfigError, FedexpError) as error:
        for line in without_secrets(str(error)).splitlines():
            print(f"fedexp resume: {line}", file=sys.stderr)
        sys.exit(2)
    code = _go_on(runs)
    sys.exit(code)


def _go_on(runs: Sequence[RunInfo]) -> int:
    failed = False
    try:
        for run in runs:
            failed = not runner.run_logged(run) or failed
    except KeyboardInterrupt:
        return signals.exit_code()
    return 1 if failed else 0


def _runs(folder: Path, overrides: Sequence[str]) -> list[RunInfo]:
    """Return what is left to do in a folder.

    Raises:
        ConfigError: If something that changes results differs from before.
        FedexpError: If there is nothing here that can be resumed.
    """
    if (folder / "config.yaml").is_file():
        run = _rest_of_run(folder, overrides, None)
        if run is None:
            print(f"{folder}: complete already")
        return [] if run is None else [run]
    sweep = folder / SWEEP_FILE
    if not sweep.is_file():
        raise FedexpError(
            f"{folder}: neither a run (config.yaml) nor a sweep ({sweep.name}) is here"
        )
    return _rest_of_sweep(folder, json.loads(sweep.read_text()), overrides)


def _rest_of_run(folder: Path, overrides: Sequence[str], sweep: str | None) -> RunInfo | None:
    """Return a run that is to go on; None if it is complete."""
    _refuse_changes(overrides)
    config = saved_config(folder, overrides)
    if owner.is_owned(folder):
        raise FedexpError(f"{folder} is being written by another process: wait for it")
    state, problems = checkpoints.latest(folder)
    for problem in problems:
        print(f"fedexp resume: {problem}", file=sys.stderr)
    if _is_complete(folder, config, state):
        return None
    if state is not None:
        _refuse_other_code(folder, config)
    told = environment(folder).get("overrides") or []
    return RunInfo(config, folder, [*told, *overrides], sweep, resume=state, again=state is None)


def _is_complete(folder: Path, config: Config, state: dict[str, Any] | None) -> bool:
    """Say whether a run has come to its end, also where it is to have more rounds than before."""
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
            f"{folder} is complete and has no checkpoint to go on from (checkpoint.every=0): run it "
            f"again with rounds={config.rounds} in another folder"
        )
    return False


def _refuse_changes(overrides: Sequence[str]) -> None:
    errors = []
    for line in overrides:
        option, equals, _ = line.partition("=")
        if not equals:
            errors.append(f"{line}: not of the form option=value")
        elif option.split(".")[0] not in FREE or option in ("backend.threads", "backend.device"):
            errors.append(
                f"{line}: would change the results; a run is resumed as it was begun, but for "
                f"{', '.join(FREE)}"
            )
    if errors:
        raise ConfigError(errors)


def _refuse_other_code(folder: Path, config: Config) -> None:
    """Refuse to go on with other versions or other code from outside: the bits might differ.

    Raises:
        ConfigError: With a line for everything that differs.
    """
    from fedexp.tracking.environment import packages

    before, now = environment(folder), packages()
    errors = [
        f"{folder} was begun with {name} {old}, here is {now.get(name)}: resume it with the version "
        "that it was begun with, or run it again"
        for name, old in before.get("packages", {}).items()
        if now.get(name) != old
    ]
    known = {entry["file"]: entry["sha256"] for entry in before.get("plugins", [])}
    for entry in plugins_in_use(config):
        if known.get(entry["file"]) != entry["sha256"]:
            errors.append(
                f"{entry['file']} is not what it was when {folder} was begun: its results would not be "
                "those of one run"
            )
    if errors:
        raise ConfigError(errors)


def _rest_of_sweep(folder: Path, told: dict[str, Any], overrides: Sequence[str]) -> list[RunInfo]:
    """Return the jobs of a sweep that are not complete."""
    name, left, done = runner.sweep_name(folder), [], 0
    for job in told["jobs"]:
        where = folder / job["folder"]
        if (where / "config.yaml").is_file():
            run = _rest_of_run(where, overrides, name)
        else:
            lines = [*job["overrides"], *overrides]
            run = runner.planned(lines, told.get("config_dir"), where, name)
        if run is None:
            done += 1
        else:
            left.append(run)
    print(f"{folder}: {done} of {len(told['jobs'])} runs are complete, {len(left)} to go")
    return left
