"""The subcommands of ``fedexp``; whatever is none of them is an experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def _compare(arguments: Sequence[str]) -> None:
    from fedexp.analysis.programs import compare_program

    compare_program(arguments)


def _report(arguments: Sequence[str]) -> None:
    from fedexp.analysis.programs import report_program

    report_program(arguments)


def _reproduce(arguments: Sequence[str]) -> None:
    from fedexp.reproduce import reproduce_program

    reproduce_program(arguments)


def _resume(arguments: Sequence[str]) -> None:
    from fedexp.tune import is_tuning, tune_program

    if arguments and is_tuning(arguments[0]):
        tune_program(arguments)
        return
    from fedexp.resume import resume_program

    resume_program(arguments)


def _tune(arguments: Sequence[str]) -> None:
    from fedexp.tune import tune_program

    tune_program(arguments)


def _new(arguments: Sequence[str]) -> None:
    from fedexp.starting import new_program

    new_program(arguments)


def _app(arguments: Sequence[str]) -> None:
    from fedexp.serving import app_program

    app_program(arguments)


def _survey(arguments: Sequence[str]) -> None:
    from fedexp.surveying import survey_program

    survey_program(arguments)


def _help(arguments: Sequence[str]) -> None:
    if len(arguments) == 1 and arguments[0] in COMMANDS:
        COMMANDS[arguments[0]](["--help"])
        return
    from fedexp.manual import help_program

    help_program(arguments)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "compare": _compare,
    "report": _report,
    "reproduce": _reproduce,
    "resume": _resume,
    "tune": _tune,
    "new": _new,
    "app": _app,
    "survey": _survey,
    "help": _help,
}
"""Name -> what runs it, given the words after the name."""
