"""``fedexp help``: what can be chosen and set, what it means, and what the tables say.

All of it is read off the classes and files that say what there is (:mod:`fedexp.core.describing`), those
of packages and scripts too.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from fedexp.analysis import legend
from fedexp.config import plugins, schema
from fedexp.config.source import source
from fedexp.core.commands import parser_of
from fedexp.core.describing import Option, description, plain
from fedexp.core.options import ConfigError, FedexpError
from fedexp.core.output import complain, say
from fedexp.core.terminal import printable
from fedexp.manual.topics import (
    GROUPS,
    SECTIONS,
    Choice,
    choice_options,
    choices,
    parted,
    section,
    standing,
)
from fedexp.manual.writing import columns, command, filled, listed

OPENING = """fedexp: federated-learning experiments on Flower, PyTorch and Ray.

Usage: fedexp [-m] [group=choice ...] [option=value ...]
       fedexp COMMAND ...

  fedexp                                         one run of the defaults
  fedexp -m strategy=fedavg,local_only seed=0,1  every combination, then a table
  fedexp mode=partition partition=dirichlet      who holds what, no training
  fedexp --cfg job strategy=local_only           the options of a run, no run
  fedexp --hydra-help                            Hydra's own flags"""

COMMANDS = {
    "compare": "the table of finished runs",
    "report": "one HTML file with tables, tests and figures",
    "resume": "go on with runs that were stopped",
    "reproduce": "a published experiment, compared with its numbers",
    "tune": "each strategy's best options, found with equally many trials, compared",
    "new": "a starting file for a strategy, dataset, ... of your own",
    "app": "an experiment as a Flower app, for SuperLink and SuperNodes",
    "survey": "what SuperNodes' own files hold, as a preset that they agree on",
    "help": "what a group, choice, option or table means",
}
"""Command -> what it gives; each has --help."""

TABLES = "tables"
_ALIASES = {"metric": "metrics", "attacks": "attack", "clients.byzantine.kind": "attack"}
DESCRIPTION = """Say what can be chosen and set, with units, ranges and defaults.

    fedexp help                         the topics
    fedexp help strategy                the choices of a group
    fedexp help strategy=scaffold       a choice: its paper, options and ranges
    fedexp help training.learning_rate  an option
    fedexp help tables                  the headings of tables
    python mine.py help strategy=mine   the same for a script of your own

Exits with 2 if there is no such topic.
"""


def overview(config_dir: str | None = None) -> str:
    """Return the page of ``fedexp --help``: groups, every option that belongs to no choice, commands."""
    groups = [
        filled(f"{group}: {', '.join(choice.name for choice in choices(group, config_dir))}")
        for group in GROUPS
    ]
    return "\n\n".join(
        [
            OPENING,
            "Groups and their choices (fedexp help strategy, fedexp help strategy=scaffold):\n"
            + "\n".join(groups),
            *(_section_page(topic) for topic in SECTIONS),
            *(_options_of_choices(group, config_dir) for group in schema.GROUPS),
            "Commands (each has --help):\n"
            + columns({f"fedexp {name}": text for name, text in COMMANDS.items()}),
        ]
    )


def index() -> str:
    """Return the page of ``fedexp help`` alone: what it can be asked about."""
    sections = {topic: _about_section(topic) for topic in SECTIONS if topic not in GROUPS}
    about = {**GROUPS, **sections, TABLES: "What the headings of the tables mean."}
    return "\n\n".join(
        [
            "fedexp help TOPIC, where TOPIC is one of these:\n" + columns(about),
            "or a choice (strategy=scaffold), an option (stop.patience), or a command:\n"
            + columns(COMMANDS),
            "fedexp --help has every option at once.",
        ]
    )


def topic_page(topic: str, config_dir: str | None = None) -> str:
    """Return the page of a topic.

    Args:
        topic: A group, a choice (``strategy=scaffold`` or ``scaffold``), an option, a section of options,
            or ``tables``.
        config_dir: A further folder of YAML files.

    Raises:
        FedexpError: If there is none, with those that are called nearly so.
    """
    topic = _ALIASES.get(topic, topic)
    group, equals, name = topic.partition("=")
    group = _ALIASES.get(group, group)
    everything = [choice for known in GROUPS for choice in choices(known, config_dir)]
    if topic == TABLES:
        return _tables_page()
    if topic in GROUPS or topic in SECTIONS:
        return _group_page(topic, [choice for choice in everything if choice.group == topic])
    mine = [c for c in everything if c.name == (name.strip("[]") if equals else topic)]
    mine = [choice for choice in mine if not equals or choice.group == group]
    pages = [_choice_page(choice) for choice in mine]
    if not pages:
        pages = _option_pages(group, everything)
    if not pages:
        words = [*GROUPS, *SECTIONS, *COMMANDS, TABLES, *(choice.name for choice in everything)]
        words += [f"{choice.group}={choice.name}" for choice in everything]
        words += [option.name for known in SECTIONS for option in section(known)]
        close = get_close_matches(topic, list(dict.fromkeys(words)), 3, 0.6)
        hint = f"did you mean {' or '.join(close)}?" if close else "fedexp help lists what there is"
        raise FedexpError(f"{topic}: no such topic; {hint}")
    return "\n\n".join(pages)


def help_program(arguments: Sequence[str]) -> None:
    """Print the pages of topics; exit with 2 if there is no such topic."""
    parser = parser_of("help", DESCRIPTION)
    parser.add_argument("topic", nargs="*", help="fedexp help alone lists them")
    parser.add_argument("--config-dir", help="a further folder of YAML files")
    args = parser.parse_args(arguments)
    try:
        plugins.load_plugins()
        source(config_dir=args.config_dir)  # which says if there is no such folder
        pages = [topic_page(topic, args.config_dir) for topic in args.topic] or [index()]
    except (ConfigError, FedexpError) as error:
        complain("fedexp help", error)
        sys.exit(2)
    say(printable("\n\n".join(pages)))


def _group_page(topic: str, found: Sequence[Choice]) -> str:
    """Write a group's choices and, where it has options of its own, these."""
    parts = []
    if found:
        default = standing().get(topic)
        chosen = default if isinstance(default, str) else ""
        lines = {c.name: c.about + (" (the default)" if c.name == chosen else "") for c in found}
        parts.append(f"{topic}: {GROUPS[topic]}\n\n{columns(lines)}")
        how = found[0].chosen_by.replace(found[0].name, "NAME")
        parts.append(f"Choose: {how}. More: fedexp help {topic}=NAME")
    parts += [_section_page(known) for known in SECTIONS if f"{known}.".startswith(f"{topic}.")]
    return "\n\n".join(parts)


def _section_page(topic: str) -> str:
    return f"{filled(_about_section(topic), '', '  ')}\n{listed(section(topic))}"


def _options_of_choices(group: str, config_dir: str | None) -> str:
    """Write the options of a group's choices, each with the choices that have it."""
    owners: dict[Option, list[str]] = {}
    found = choices(group, config_dir)
    for choice in found:
        for option in choice_options(choice):
            owners.setdefault(option, []).append(choice.name)
    if not owners:
        return f"Options of {group}=: none."
    number = sum(choice.page is not None for choice in found)
    told = [
        option if len(names) == number else replace(option, meaning=_owned(option, names))
        for option, names in owners.items()
    ]
    return f"Options of {group}=, beside each the choices that have it\n{listed(told)}"


def _owned(option: Option, names: Sequence[str]) -> str:
    return f"{', '.join(names)}: {option.meaning}".removesuffix(": ")


def _choice_page(choice: Choice) -> str:
    """Write what a choice is, its options and where it is written."""
    if choice.page is None:
        return _preset_page(choice)
    opening = filled(f"{choice.chosen_by}: {choice.about}", "", "  ")
    first, *rest = plain(description(choice.page)).split("\n\n")
    paragraphs = rest if first == choice.about else [first, *rest]
    told = listed(choice_options(choice)) or "  It has no options of its own."
    where = f"  Written in {_short(choice.file)}." if choice.file else ""
    prose = [filled(" ".join(part.split()), "  ", "  ") for part in paragraphs]
    return "\n\n".join(part for part in [opening, *prose, told, where] if part)


def _preset_page(choice: Choice) -> str:
    """Write what a preset is for, the commands that use it, and what it sets."""
    assert choice.file is not None
    about, commands, rest = parted(choice.file)
    return "\n\n".join(
        part
        for part in [
            filled(f"{choice.chosen_by}: {about}", "", "  "),
            "\n".join(map(command, commands)),
            textwrap.indent(rest, "  "),
            f"  Written in {_short(choice.file)}.",
        ]
        if part
    )


def _option_pages(name: str, everything: Sequence[Choice]) -> list[str]:
    """Write the options of a name; several choices may have one, each its own."""
    found = [option for topic in SECTIONS for option in section(topic) if option.name == name]
    pages = [listed([option]) for option in found]
    for choice in everything:
        mine = [o for o in choice_options(choice) if o.name == name and o not in found]
        pages += [f"{choice.chosen_by}\n{listed(mine)}"] if mine else []
    return pages


def _tables_page() -> str:
    told = legend.everything().items()
    lines = (filled(f"{heading}: {text}.", "", "  ") for heading, text in told)
    return "What the headings of tables mean\n\n" + "\n".join(lines)


def _about_section(topic: str) -> str:
    return plain(description(SECTIONS[topic][0])).partition("\n")[0]


def _short(file: Path) -> str:
    """Return a file's path from the package on, or from here, where it is in one of them."""
    for root in (Path(__file__).parents[1], Path.cwd()):
        if file.is_relative_to(root):
            return str(file.relative_to(root))
    return str(file)
