"""An experiment as a Flower app: ``fedexp app`` writes it, and its ServerApp runs the round loop."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedexp import runner
from fedexp.backends import deployment
from fedexp.backends.flower_app import app_files
from fedexp.config.composition import plan
from fedexp.config.flat import from_flat
from fedexp.config.folders import stamp
from fedexp.config.plugins import load_plugins
from fedexp.config.schema import Config
from fedexp.core import owner
from fedexp.core.commands import parser_of
from fedexp.core.files import try_folder, unwritable, write_whole
from fedexp.core.options import ConfigError, FedexpError
from fedexp.core.output import complain
from fedexp.federation.events import RunInfo

DESCRIPTION = """Write an experiment as a Flower app, which flwr run sends to a SuperLink.

    fedexp app hospitals strategy=scaffold rounds=20
    flwr run hospitals NAME --run-config 'rounds=5'

NAME is a connection to a SuperLink in Flower's config.toml. fedexp must be installed where SuperLink and
SuperNodes run. The run's folder is written below results/ where the SuperLink was started.
docs/deployment.md says all of it.
"""


def app_program(arguments: Sequence[str]) -> None:
    """Write the app, and say how it is run."""
    parser = parser_of("app", DESCRIPTION)
    parser.add_argument("folder", type=Path, help="the app's, which must not be there yet")
    parser.add_argument(
        "overrides", nargs="*", default=[], help="such as strategy=scaffold rounds=20"
    )
    parser.add_argument("--config-dir", metavar="DIR", help="a folder of presets")
    args = parser.parse_args(arguments)
    try:
        load_plugins()
        write_app(args.folder, args.overrides, args.config_dir)
    except (ConfigError, FedexpError) as error:
        complain("fedexp app", error)
        sys.exit(2)
    where = shlex.quote(str(args.folder))
    print(
        f"wrote {args.folder}; once SuperLink and SuperNodes run (docs/deployment.md), run it with\n"
        f"    flwr run {where} NAME --stream"
    )


def write_app(folder: Path, overrides: Sequence[str], presets: str | None = None) -> None:
    """Write an experiment as a Flower app.

    Args:
        folder: Must not be there, or be empty.
        overrides: As on the command line.
        presets: A further folder of YAML files.

    Raises:
        ConfigError: If the configuration cannot be run, or is not for a deployment; a line each.
        FedexpError: If the folder holds something, or cannot be written.
    """
    (job,) = plan(["backend=deployment", *overrides], multirun=False, config_dir=presets)
    if job.config.backend.takes_code:
        raise ConfigError(
            [f"a Flower app runs on SuperNodes: leave out backend={job.config.backend.name}"]
        )
    runner.ensure_installed([job.config])
    try_folder(folder)
    with unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FedexpError(f"{folder} is not empty: choose another folder for the app")
        for name, text in app_files(job.config).items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_whole(folder / name, text.encode())


class ServedApp(ServerApp):
    """The ServerApp of an app that ``fedexp app`` wrote: runs the experiment, and writes its folder."""

    def __call__(self, grid: Grid, context: Context) -> None:
        """Run the experiment.

        Raises:
            FedexpError: If the run fails, so that Flower takes note of it.
        """
        load_plugins()
        config = from_flat(context.run_config)
        folder = Path("results").absolute() / config.name / stamp()
        print(f"fedexp: the run is written to {folder}", flush=True)
        with deployment.through(grid):
            completed = _run(config, folder)
        if not completed:
            raise FedexpError(f"the run did not complete: see {folder / 'run.log'}")


def _run(config: Config, folder: Path) -> bool:
    with unwritable(folder):
        owner.reserve(folder)
    try:
        runner.ensure([config])
        return runner.run_logged(RunInfo(config, folder))
    finally:
        owner.release(folder)
