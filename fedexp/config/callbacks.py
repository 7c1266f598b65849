"""What fedexp has Hydra call: where a multirun writes, what stays of an earlier one, no keys in files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from fedexp.config.composition import Job
from fedexp.config.hydra_internals import is_basic_launcher
from fedexp.core import signals
from fedexp.core.commands import command
from fedexp.core.files import SWEEP_FILE, json_bytes, without_secrets, write_whole
from fedexp.core.options import FedexpError
from fedexp.core.workers import stop_runs


class SweepFolder(Callback):
    """Hydra callback: note where a multirun writes, so that its runs can be compared at the end.

    Noted at the start, because Hydra does not tell the end of a multirun that breaks off. What an earlier
    multirun left in the folder stays, and keys are kept out of what Hydra writes.
    """

    path: ClassVar[Path | None] = None
    in_this_process: ClassVar[bool] = True
    manifest: ClassVar[Sequence[dict[str, Any]] | None] = None
    """The jobs of the command, where they are known beforehand."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Keep the folder on the class; Hydra owns the instance."""
        folder = Path(config.hydra.sweep.dir).absolute()
        SweepFolder.path = Path(os.path.relpath(folder))
        SweepFolder.in_this_process = is_basic_launcher(config.hydra)
        if not SweepFolder.in_this_process:
            signals.before_stopping(partial(stop_runs, folder))
        written, number = folder / "multirun.yaml", 1
        if written.is_file():
            while (aside := folder / f"multirun-{number}.yaml").exists():
                number += 1
            written.rename(aside)
        if SweepFolder.manifest is not None:
            try:
                add_to_manifest(folder, SweepFolder.manifest)
            except OSError as error:  # Hydra would print where in the code
                print(
                    f"fedexp: {folder / SWEEP_FILE} cannot be written: {error.strerror}; this multirun "
                    "cannot be resumed as a whole",
                    file=sys.stderr,
                )

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Rewrite what Hydra wrote just before the job."""
        runtime = config.hydra.runtime
        files = [*_hydras_own(Path(runtime.output_dir), config.hydra.output_subdir)]
        if config.hydra.mode is RunMode.MULTIRUN and config.hydra.job.num == 0:
            files.append(Path(runtime.cwd) / config.hydra.sweep.dir / "multirun.yaml")
        for file in files:
            if file.is_file():
                try:
                    write_whole(file, without_secrets(file.read_text()).encode())
                except OSError:  # on a full disk: rather no such file than a key in it
                    file.unlink(missing_ok=True)


def _hydras_own(folder: Path, subfolder: str | None) -> Sequence[Path]:
    return sorted((folder / subfolder).glob("*.yaml")) if subfolder else []


def manifest_of(
    jobs: Sequence[Job], sweep: Path, files: Mapping[str, str | None]
) -> list[dict[str, Any]]:
    """Return what ``fedexp resume`` must know of a sweep's jobs.

    Args:
        jobs: Their folders are known.
        sweep: The sweep's folder.
        files: What they were composed with beside their overrides: ``config_dir``, ``config_name`` and
            ``config_path``, where they were given.
    """
    folders = {
        name: str(Path(told).absolute())
        for name in ("config_dir", "config_path")
        if (told := files.get(name)) is not None
    }
    return [
        {
            "folder": os.path.relpath(job.folder, sweep),
            "overrides": [without_secrets(line) for line in job.overrides],
            "files": {**files, **folders},
        }
        for job in jobs
        if job.folder is not None
    ]


def add_to_manifest(folder: Path, jobs: Sequence[dict[str, Any]]) -> None:
    """Write which jobs a sweep's folder is for, those of an earlier command included."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SWEEP_FILE
    before = jobs_in(folder) if path.is_file() else []
    new = {job["folder"] for job in jobs}
    kept = [job for job in before if job["folder"] not in new]
    write_whole(path, json_bytes({"jobs": [*kept, *jobs]}))


def refuse_promised(folder: Path, jobs: Sequence[dict[str, Any]]) -> None:
    """Refuse to take the place of a job that an earlier command was to run, and has not begun.

    Args:
        folder: The sweep's.
        jobs: Those of the command, as :func:`manifest_of` lists them.

    Raises:
        FedexpError: With what can be done about it.
    """
    if not (folder / SWEEP_FILE).is_file():
        return
    wanted = {job["folder"] for job in jobs}
    earlier = [name for job in jobs_in(folder) if (name := job["folder"]) in wanted]
    if earlier:
        raise FedexpError(
            f"{folder}: {', '.join(earlier)} of an earlier command has not begun; finish that by "
            f"{command('resume', str(folder))}, or choose another hydra.sweep.dir"
        )


def jobs_in(folder: Path) -> list[dict[str, Any]]:
    """Return the jobs that a sweep's folder is for: ``folder``, ``overrides``, ``files``.

    Raises:
        FedexpError: If the file that lists them cannot be read.
    """
    path = folder / SWEEP_FILE
    try:
        jobs = json.loads(path.read_text())["jobs"]
        return [{name: job[name] for name in ("folder", "overrides", "files")} for job in jobs]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FedexpError(
            f"{path} cannot be read ({error}): its runs can be resumed one by one"
        ) from error
