"""``fedexp survey``: ask SuperNodes what their files hold, and write down what they agree on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from fedexp import datasets
from fedexp.config.backend import DeploymentBackend
from fedexp.config.clients import ClientsConfig
from fedexp.config.composition import composed_values
from fedexp.config.plugins import load_plugins
from fedexp.core import signals
from fedexp.core.commands import parser_of
from fedexp.core.files import unwritable, write_whole
from fedexp.core.options import ConfigError, FedexpError, range_errors
from fedexp.core.output import complain, say
from fedexp.datasets.on_nodes import OnNodes

DESCRIPTION = """Ask SuperNodes what their own files hold, and write down what they agree on.

    fedexp survey agreed/dataset/hospitals.yaml dataset.target=outcome \\
        clients.num=3 backend.superlink=10.0.0.1:8000 \\
        backend.root_certificates=ca.crt backend.secret=secret
    fedexp --config-dir agreed dataset=hospitals partition=given \\
        model=logistic backend=deployment backend.superlink=...

Nodes answer in names of columns, words of categories and classes, counts and sums; no row leaves one.
What they agree on is written as a preset that people can read, and runs name. docs/deployment.md lists
what is told. Exits with 0 if they agree, else with 2 and a line that says why not.
"""

GROUP = "dataset"


def survey_program(arguments: Sequence[str]) -> None:
    """Survey nodes, and exit."""
    parser = parser_of("survey", DESCRIPTION)
    parser.add_argument("file", type=Path, help="to write, such as agreed/dataset/hospitals.yaml")
    parser.add_argument(
        "overrides", nargs="*", default=[], help="such as dataset.target=outcome clients.num=3"
    )
    args = parser.parse_args(arguments)
    signals.stop_on_signals()
    try:
        load_plugins()
        write_survey(args.file, args.overrides)
    except (ConfigError, FedexpError) as error:
        complain("fedexp survey", error)
        sys.exit(2)


def write_survey(file: Path, overrides: Sequence[str]) -> None:
    """Survey nodes, and write the preset.

    Args:
        file: To write; lies in a folder ``dataset``.
        overrides: As on the command line of a run: options of dataset and backend, and ``clients.num``.

    Raises:
        ConfigError: If an option is not sound; a line each.
        FedexpError: If the nodes do not agree, or the file cannot be written.
    """
    _check_file(file)
    page, backend, num_nodes = _asked(overrides)
    from fedexp.backends import asking, resources  # imports torch and Flower

    resources.ensure(backend)
    found = asking.survey(backend, num_nodes, page.asked, say)
    with unwritable(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, preset(page, found.plain(), file).encode())
    say(f"{len(found.owners)} clients agree on {len(found.schema.names)} inputs, wrote {file}")
    for owner, train, test in zip(found.owners, found.num_train, found.num_test, strict=True):
        say(f"  {owner}: {train} examples to train on, {test} to test on")
    say(f"next: {_command(file)} backend=deployment, and the backend's options as here")


def preset(page: OnNodes, agreed: dict[str, Any], file: Path) -> str:
    """Return the text of the preset."""
    options = {
        "target": page.target,
        "test_fraction": page.test_fraction,
        "split_seed": page.split_seed,
        "predict": page.predict,
        "categories": list(page.categories),
        "ignore": list(page.ignore),
        "scale": page.scale,
        "agreed": agreed,
    }
    told = yaml.safe_dump(options, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return (
        f"# {_command(file)} backend=deployment\n"
        "# Written by fedexp survey: what nodes have agreed on, and all that is known of their data.\n"
        f"defaults: [{page.name}]\n{told}"
    )


def _command(file: Path) -> str:
    folder = shlex.quote(str(file.parent.parent))
    return f"fedexp --config-dir {folder} dataset={file.stem} partition=given"


def _check_file(file: Path) -> None:
    sound = file.suffix == ".yaml" and file.parent.name == GROUP and file.stem.isidentifier()
    if not sound:
        raise ConfigError(
            [f"{file}: must be FOLDER/{GROUP}/NAME.yaml, such as agreed/{GROUP}/hospitals.yaml"]
        )
    if file.stem in datasets.choices():
        raise ConfigError(
            [f"{file}: {GROUP}={file.stem} is a choice already: give the file another name"]
        )
    if file.exists():
        raise FedexpError(
            f"{file} is there already, and runs may have been made with it: choose another name"
        )


def _asked(overrides: Sequence[str]) -> tuple[OnNodes, DeploymentBackend, int]:
    """Return what is to be asked, where, and of how many nodes.

    Raises:
        ConfigError: If an option is not sound; a line each.
    """
    others = sorted(
        {line.lstrip("+~").partition("=")[0].partition(".")[0] for line in overrides}
        - {GROUP, "backend", "clients"}
    )
    if others:
        raise ConfigError(
            [f"{name}: a survey asks about data; leave it to the run" for name in others]
        )
    values = composed_values([f"{GROUP}=on_nodes", "backend=deployment", *overrides])
    chosen = values[GROUP]["name"], values["backend"]["name"]
    if chosen != (OnNodes.name, DeploymentBackend.name):
        raise ConfigError(
            [
                f"a survey is of dataset={OnNodes.name} by backend={DeploymentBackend.name}: leave "
                f"other choices out, got {' and '.join(chosen)}"
            ]
        )
    page, backend = OnNodes(**values[GROUP]), DeploymentBackend(**values["backend"])
    num = len(backend.data) or int(values["clients"]["num"])
    if errors := list(_errors(page, backend, num)):
        raise ConfigError(errors)
    return page, backend, num


def _errors(page: OnNodes, backend: DeploymentBackend, num: int) -> Iterator[str]:
    yield from range_errors(page, f"{GROUP}.")
    yield from range_errors(backend, "backend.")
    yield from range_errors(ClientsConfig(num=num), "clients.")
    plan: Any = SimpleNamespace(clients=SimpleNamespace(num=num), dataset=page)
    yield from backend.errors(plan)
