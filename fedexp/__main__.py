"""The program ``fedexp`` (also ``python -m fedexp``, and ``fedexp.main()`` in a script of your own)."""

from __future__ import annotations

from fedexp.core import signals

with signals.ending_at_once():  # what follows takes a moment
    import math
    import os
    import signal
    import sys
    from argparse import Namespace
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future, ThreadPoolExecutor, wait
    from contextlib import chdir, nullcontext, suppress
    from difflib import get_close_matches
    from functools import partial
    from pathlib import Path

    from hydra import main as hydra_main
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig

    from fedexp import manual, runner
    from fedexp.commands import COMMANDS
    from fedexp.config import studies, sweeper
    from fedexp.config.beside import Beside
    from fedexp.config.callbacks import SweepFolder, manifest_of, refuse_promised
    from fedexp.config.composing import from_hydra, register
    from fedexp.config.composition import Job, composed_values, plan
    from fedexp.config.explain import cause
    from fedexp.config.hydra_internals import (
        BASIC,
        argument_parser,
        files_of,
        flag_errors,
        is_basic_launcher,
        is_basic_sweeper,
        launch_patiently,
        quoted,
        raising,
        words_of,
    )
    from fedexp.config.hydra_memory import composing_once
    from fedexp.config.plugins import load_plugins, outside_pages, register_again
    from fedexp.config.schema import Config
    from fedexp.config.source import conf_dir, source, without_plus
    from fedexp.core import commands, drawing, forked, garbage, owner, preloading, terminal
    from fedexp.core.files import unwritable
    from fedexp.core.options import ConfigError, FedexpError
    from fedexp.core.output import complain, reader_gone, say
    from fedexp.data.loading import load
    from fedexp.federation.events import DIVERGED, RunInfo
    from fedexp.launching import beside

EXIT_FAILED, EXIT_BAD_CONFIG = 1, 2
_failed_runs: list[Path] = []
_warming_up: list[Future[None]] = []


def main() -> None:
    """Check the command, run it, end with the table of a multirun and the right exit code.

    A script of your own registers what it brings, then calls this: ``python mine.py -m
    strategy=mine,fedavg``. It ends the process, so nothing that follows in the script is done.

    Exit codes: 0 every run completed, 1 a run failed or diverged, 2 the command or its data cannot be
    used (nothing is written), 130 interrupted; where a signal stopped it, 128 and its number (143 for
    SIGTERM).
    """
    commands.begun_by(sys.argv[0])
    forked.is_program = True
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        try:
            try:
                COMMANDS[sys.argv[1]](sys.argv[2:])
            finally:  # they exit with a code of their own
                sys.stdout.flush()
        except KeyboardInterrupt:
            sys.exit(signals.exit_code())
        except BrokenPipeError:
            reader_gone()
        return
    with signals.ending_at_once():
        try:
            load_plugins()
        except FedexpError as error:
            sys.exit(_complain(error))
        args = argument_parser().parse_args()
    if errors := flag_errors(args):
        sys.exit(_complain(ConfigError(errors)))
    if any((args.help, args.hydra_help, args.cfg, args.info, args.shell_completion)):
        try:
            if args.help:
                return _help(args)
            if args.cfg:  # whose mistakes we tell better than Hydra
                composed_values(args.overrides, **files_of(args))
            _hand_to_hydra(args)
        except (ConfigError, FedexpError) as error:
            sys.exit(_complain(error))
        return
    signals.stop_on_signals()
    trains, code = False, 0
    try:
        with composing_once():
            jobs, command, side_by_side = _prepare(args)
            trains = any(job.config.mode == "train" for job in jobs)
            _hand_to_hydra(args, command, side_by_side)
    except KeyboardInterrupt:
        code = signals.exit_code()
    except FedexpError as error:
        _complain(error)
        code = EXIT_FAILED
    try:
        failed = _conclude(compare=trains)
    except KeyboardInterrupt:
        failed, code = True, code or signals.exit_code()
    runner.leave(code or (EXIT_FAILED if failed else 0), at_once=SweepFolder.in_this_process)


def _help(args: Namespace) -> None:
    """Print what ``--help`` says: of everything, or of the words beside it.

    Raises:
        ConfigError: If a folder that the command names is not there.
        FedexpError: If there is no such topic.
    """
    source(**files_of(args))
    pages = [manual.topic_page(word, args.config_dir) for word in args.overrides]
    say(terminal.printable("\n\n".join(pages or [manual.overview(args.config_dir)])))


def _prepare(args: Namespace) -> tuple[list[Job], list[str], Beside | None]:
    """Start what a command needs before Hydra takes over.

    Returns:
        The jobs, the overrides that have Hydra run what was planned, and how jobs run side by side.
    """
    try:
        files = files_of(args)
        _refuse_misspelt(args.overrides)
        preloading.begin()
        with signals.ending_at_once():
            jobs = plan(args.overrides, multirun=args.multirun, tell=say, **files)
        configs = [job.config for job in jobs]
        runner.ensure_folders([job.folder for job in jobs], jobs[0].sweep)
        _keep_manifest(jobs, files)
        runner.ensure(configs, here=jobs[0].launcher != "slurm")
        if jobs[0].study is not None:
            studies.ensure(jobs[0].study)
            sweeper.choose_by(jobs[0].study)
        training = [config for config in configs if config.mode == "train"]
        side_by_side = beside(jobs, _job_lost, _job_failed) if training else None
        if training:
            if jobs[0].launcher == BASIC:
                if side_by_side is None:  # else each process draws for itself
                    drawing.begin()
                _start_up(training)
            _reserve_folder(jobs)
    except (ConfigError, FedexpError) as error:
        runner.leave(_complain(error))
    sweep, command = jobs[0].sweep, jobs[0].command or without_plus(args.overrides)
    pinned = [] if sweep is None else [f"hydra.sweep.dir={quoted(str(sweep))}"]
    return jobs, [*command, *pinned], side_by_side


def _refuse_misspelt(words: Sequence[str]) -> None:
    """Name the command that somebody meant whose first word is none.

    Raises:
        ConfigError: If it looks like one.
    """
    for word in words[:1]:
        if "=" not in word and (close := get_close_matches(word, COMMANDS, 1, 0.75)):
            raise ConfigError([f"{word}: no such command; did you mean {close[0]}?"])


def _keep_manifest(jobs: Sequence[Job], files: Mapping[str, str | None]) -> None:
    """Note what a multirun consists of, where it is known, so that it can be resumed.

    Raises:
        FedexpError: If a folder belongs to a job of an earlier command that has not begun.
    """
    sweep = jobs[0].sweep
    if sweep is not None and not any(job.folder is None or job.chosen_later for job in jobs):
        SweepFolder.manifest = manifest_of(jobs, sweep, files)
        refuse_promised(sweep, SweepFolder.manifest)


def _reserve_folder(jobs: Sequence[Job]) -> None:
    """Keep other processes from the folder of a run, or of a multirun, while this one lasts.

    Raises:
        FedexpError: If another process writes it, or it cannot be made.
    """
    folder = jobs[0].sweep or jobs[0].folder
    if folder is not None:
        with unwritable(folder):
            owner.reserve(folder)


def _hand_to_hydra(
    args: Namespace, command: Sequence[str] | None = None, side_by_side: Beside | None = None
) -> None:
    """Let Hydra do what a command asks for.

    Args:
        args: The flags.
        command: The overrides, where they are not those that stand on the command line.
        side_by_side: How jobs run beside one another; None runs one after another.

    Raises:
        ConfigError: If a file that the command names cannot be used.
        FedexpError: If Hydra is stopped by something that no job has told of.
    """
    begin = source(**files_of(args))
    begin.register()
    register()
    told = sys.argv
    overrides = without_plus(args.overrides) if command is None else command
    sys.argv = [told[0], *words_of(args, overrides)]
    if side_by_side is not None:
        wait(_warming_up)  # a fork has no threads that would finish imports
    launch_patiently(_folder_failed, say, side_by_side)
    # A launcher's processes are sent what a script has registered along with the function they call.
    task = partial(_run, outside=outside_pages(), told=told)
    task.__module__ = __name__
    run = hydra_main(config_path=str(conf_dir()), config_name=begin.name, version_base="1.3")(task)
    try:
        with raising():
            run()
        sys.stdout.flush()
    except BrokenPipeError:
        reader_gone()
    except Exception as error:
        if "HYDRA_FULL_ERROR" in os.environ:  # somebody wants to see it all
            raise
        if isinstance(error, OSError):
            where = error.filename2 or error.filename or SweepFolder.path
            raise FedexpError(f"{where} cannot be written: {error.strerror or error}") from error
        raise FedexpError(f"{cause(error)} (HYDRA_FULL_ERROR=1 shows where)") from error
    finally:
        sys.argv = told


def _folder_failed(error: OSError) -> None:
    """Tell that a job has no folder; the others go on."""
    where = Path(error.filename2 or error.filename or "")
    _failed_runs.append(where)
    print(f"fedexp: run failed: {where} cannot be made: {error.strerror or error}", file=sys.stderr)


def _job_lost(number: int, code: int) -> None:
    """Note that a job has no result, and tell it where its own process could not."""
    _failed_runs.append(Path(str(number)))
    if code < 0:
        print(
            f"fedexp: run failed: job {number + 1}: {signal.Signals(-code).name} ended its process",
            file=sys.stderr,
        )


def _job_failed() -> bool:
    """Say, in a job's own process, whether it failed; the process goes on to another job."""
    failed = bool(_failed_runs)
    _failed_runs.clear()
    return failed


def _conclude(*, compare: bool) -> bool:
    """Print the table of a multirun; return whether a run failed."""
    failed = bool(_failed_runs)
    if compare and SweepFolder.path is not None:
        failed = not runner.tell_table(SweepFolder.path) or failed
    return failed


def _start_up(configs: list[Config]) -> None:
    """Import torch and read the data beside Ray's start and Hydra's; each is mostly waiting.

    In a multirun, what fails here fails again in the job that needs it, and is reported there.
    """
    _warming_up.append(ThreadPoolExecutor(1).submit(runner.warm_up, configs[0]))
    if configs[0].backend.starts_ray:
        from fedexp.backends.ray_session import start_ray

        with suppress(FedexpError) if len(configs) > 1 else nullcontext():
            start_ray(configs[0])
    held = configs[0].backend.nodes_here(configs[0].clients.num, own_data=configs[0].dataset.remote)
    if held:
        from fedexp.backends.rehearsal import rehearsal

        rehearsal(held)


def _complain(error: Exception) -> int:
    complain("fedexp", error)
    return EXIT_BAD_CONFIG


def _run(node: DictConfig, *, outside: list[type], told: list[str]) -> float:
    """Run one job and return its objective, NaN if it has none.

    A failure is recorded in the job's folder and must not end the multirun. A sweeper that learns from
    its jobs, such as Optuna, is told by the exception itself.
    """
    hydra = HydraConfig.get()
    folder, several = Path(hydra.runtime.output_dir), hydra.mode is RunMode.MULTIRUN
    if several and SweepFolder.path is None:  # a launcher's process
        signals.stop_once()
        signals.obey()  # a job that waited while an earlier one was stopped
    sys.argv = told  # what the user has typed is noted in the run's folder
    commands.begun_by(told[0])
    register_again(outside)
    learns = several and not is_basic_sweeper(hydra)
    summary = None
    try:
        with runner.telling_failure(folder, reraise=learns):
            with chdir(hydra.runtime.cwd) if hydra.job.chdir else nullcontext():
                config = from_hydra(node)  # what a sweeper chooses is seen here for the first time
            run = RunInfo(
                config,
                folder,
                list(hydra.overrides.task),
                runner.sweep_name(Path(hydra.sweep.dir)) if several else None,
                folder.name if forked.among_others or not is_basic_launcher(hydra) else "",
            )
            if (
                hydra.job.chdir and not run.config.dataset.remote
            ):  # which moves the job, not the data; the run tells what is wrong with it
                with chdir(hydra.runtime.cwd), suppress(FedexpError):
                    load(run.config.dataset)
            summary = runner.run_job(run, verbose=bool(hydra.verbose))
    finally:
        if summary is None or summary.get("status") == DIVERGED:
            _failed_runs.append(folder)
    if several:
        garbage.settle()
    if not summary or summary.get("status") == DIVERGED:
        return math.nan
    from fedexp.federation.conclusion import objective

    return objective(run.config, summary)


if __name__ == "__main__":
    main()
