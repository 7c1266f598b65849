"""The program ``fedexp`` (also ``python -m fedexp``)."""

from __future__ import annotations

import logging
import math
import os
import sys
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NoReturn

from hydra import main as hydra_main
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fedexp.config.composition import (
    CONFIG_NAME,
    SweepFolder,
    check_command,
    conf_dir,
    from_hydra,
    is_basic_launcher,
    is_basic_sweeper,
    register,
)
from fedexp.config.schema import Config, RayBackend
from fedexp.core import signals
from fedexp.core.options import ConfigError, FedexpError
from fedexp.tracking.run_folder import without_secrets

EXIT_FAILED, EXIT_BAD_CONFIG = 1, 2
_failed_runs: list[Path] = []


def main() -> None:
    """Check the command, run it, end with the table of a multirun and the right exit code.

    Exit codes: 0 every run completed, 1 a run failed, 2 the command or its data cannot be used (nothing
    is written), 130 interrupted; where a signal stopped it, 128 and its number (143 for SIGTERM).
    """
    args = get_args_parser().parse_args()
    if any((args.help, args.hydra_help, args.cfg, args.info, args.shell_completion)):
        _hand_to_hydra()
        return
    signals.stop_on_signals()
    trains, code = False, 0
    try:
        trains = _prepare(args)
        _hand_to_hydra()
    except KeyboardInterrupt:
        code = signals.exit_code()
    try:
        failed = _conclude(compare=trains)
    except KeyboardInterrupt:
        failed, code = True, code or signals.exit_code()
    _leave(code or (EXIT_FAILED if failed else 0))


def _prepare(args: Namespace) -> bool:
    """Start what a command needs before Hydra takes over; return whether it trains anything."""
    try:
        configs = _refuse_early(args.overrides, args.multirun, args.config_dir)
        training = [config for config in configs if config.mode == "train"]
        if training:
            _start_up(training)
    except (ConfigError, FedexpError) as error:
        sys.exit(_complain(error))
    return bool(training)


def _hand_to_hydra() -> None:
    register()
    hydra_main(config_path=str(conf_dir()), config_name=CONFIG_NAME, version_base="1.3")(_run)()


def _conclude(*, compare: bool) -> bool:
    """Print the table of a multirun; return whether a run failed."""
    failed = bool(_failed_runs)
    if compare and SweepFolder.path is not None:
        from fedexp.analysis.tables import closing_table

        text, all_completed = closing_table(SweepFolder.path)
        read = _print(text)
        failed = failed or not all_completed or not read
    return failed


def _print(text: str) -> bool:
    """Print, and return whether anybody reads it."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _leave(code: int) -> NoReturn:
    """End the process once all is written: tearing down torch's libraries takes most of a second.

    Not where a launcher has processes of its own, which only a full exit ends.
    """
    signals.ignore_signals()
    if not SweepFolder.in_this_process:
        sys.exit(code)
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # ends its service process
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _refuse_early(overrides: list[str], multirun: bool, config_dir: str | None) -> list[Config]:
    configs = check_command(overrides, multirun=multirun, config_dir=config_dir)
    from fedexp.data import federated as data
    from fedexp.tracking import trackers as tracking

    for dataset in {repr(c.dataset): c.dataset for c in configs}.values():
        data.ensure(dataset)
    for mirrors in {repr(c.tracking): c.tracking for c in configs}.values():
        tracking.ensure(mirrors)
    return configs


def _start_up(configs: list[Config]) -> None:
    """Import torch and read the data beside Ray's start and Hydra's; each is mostly waiting.

    In a multirun, what fails here fails again in the job that needs it, and is reported there.
    """
    ThreadPoolExecutor(1).submit(_import_and_read, configs[0])
    if isinstance(configs[0].backend, RayBackend):
        from fedexp.backends.ray_session import start_ray

        with suppress(FedexpError) if len(configs) > 1 else nullcontext():
            start_ray(configs[0])


def _import_and_read(config: Config) -> None:
    import fedexp.experiment  # noqa: F401
    from fedexp.data.federated import load_dataset

    load_dataset(config.dataset)


def _complain(error: Exception) -> int:
    for line in without_secrets(str(error)).splitlines():
        print(f"fedexp: {line}", file=sys.stderr)
    return EXIT_BAD_CONFIG


def _run(node: DictConfig) -> float:
    """Run one job and return its objective, NaN if it has none.

    A failure is recorded in the job's folder and must not end the multirun. A sweeper that learns from
    its jobs, such as Optuna, is told by the exception itself.
    """
    signals.stop_on_signals()  # for the processes that a launcher may have
    hydra = HydraConfig.get()
    run_dir = Path(hydra.runtime.output_dir)
    try:
        config = from_hydra(node)
        if config.mode == "partition":
            from fedexp.preview import show_partition

            show_partition(config, run_dir)
        else:
            from fedexp.experiment import run_experiment
            from fedexp.federation.conclusion import objective

            sweep = Path(hydra.sweep.dir) if hydra.mode is RunMode.MULTIRUN else None
            summary = run_experiment(
                config,
                run_dir,
                overrides=list(hydra.overrides.task),
                sweep=None if sweep is None else "-".join(sweep.parts[-2:]),
                label="" if is_basic_launcher(hydra) else run_dir.name,
                verbose=bool(hydra.verbose),
            )
            return objective(config, summary)
    except Exception as error:
        _failed_runs.append(run_dir)
        logging.getLogger("fedexp").exception("the run failed")
        reason = str(error).strip() or type(error).__name__
        kind = "" if isinstance(error, FedexpError) else f"{type(error).__name__}: "
        reason = without_secrets(f"{kind}{reason}")
        print(f"fedexp: run failed: {reason} ({run_dir / 'run.log'})", file=sys.stderr)
        if hydra.mode is RunMode.MULTIRUN and not is_basic_sweeper(hydra):
            raise
    return math.nan


if __name__ == "__main__":
    main()
