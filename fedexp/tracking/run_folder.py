"""What a run leaves in its folder; local files are the truth, and trackers mirror them.

Files that are written once appear whole or not at all; the CSV files grow by whole rounds, flushed as
they come, so that a run that is cut off keeps every round it completed.
"""

from __future__ import annotations

import csv
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from safetensors.numpy import save as safetensors_bytes

from fedexp.config.plugins import plugins_in_use
from fedexp.config.schema import config_bytes
from fedexp.core.files import json_bytes, without_secrets, write_whole
from fedexp.federation.conclusion import head
from fedexp.federation.events import (
    Ending,
    Failure,
    Listener,
    Measurement,
    RoundReport,
    RunInfo,
)

_LAST = ("partition.json", "partition.png", "model.safetensors", "confusion.csv", "confusion.png")
"""Files that not every run gets as far as writing."""
_PACKAGES = ("fedexp", "flwr", "ray", "torch", "torchvision", "numpy", "hydra-core", "omegaconf")


class RunFolder(Listener):
    """Writes one run's folder."""

    def begin(self, run: RunInfo) -> None:
        """Make the folder and write what is known before the run; a run that had it is cleared away."""
        self.path = run.folder
        self.path.mkdir(parents=True, exist_ok=True)
        self._clear()
        self._write("config.yaml", config_bytes(run.config))
        self._write("environment.json", json_bytes(environment(run)))
        self._write("summary.json", json_bytes(head(run.config, "running")))
        self._metrics = _Table(self.path / "metrics.csv", Measurement._fields)
        self._timings = _Table(self.path / "timings.csv", ("round", "phase", "seconds"))
        self._failures = _Table(self.path / "failures.csv", Failure._fields)

    def dealt(self, partition: Mapping[str, Any]) -> None:
        """Write partition.json."""
        self._write("partition.json", json_bytes(partition))

    def round(self, report: RoundReport) -> None:
        """Append to the CSV files; floats in full precision."""
        self._failures.append(report.failures)
        self._timings.append(
            (report.round, phase, f"{seconds:.6f}") for phase, seconds in report.seconds.items()
        )
        self._metrics.append(report.measurements)

    def end(self, ending: Ending) -> None:
        """Write what there is of the final models, and summary.json last: it says that all is there."""
        self._metrics.append(m for m in ending.measurements if m.client not in ending.reported)
        if ending.weights is not None:
            self._write("model.safetensors", safetensors_bytes(dict(ending.weights)))
        if ending.confusion is not None:
            self._write("confusion.csv", _confusion_csv(ending.confusion).encode())
        for name, picture in ending.pictures.items():
            self._write(f"{name}.png", picture)
        self._write("summary.json", json_bytes(ending.summary))
        for table in (self._metrics, self._timings, self._failures):
            table.close()

    def _write(self, name: str, content: bytes) -> None:
        write_whole(self.path / name, content)

    def _clear(self) -> None:
        """Remove what a run that had this folder before may have got further to write."""
        if (self.path / "summary.json").is_file():
            for name in _LAST:
                if (self.path / name).is_file():
                    (self.path / name).unlink()


class _Table:
    def __init__(self, path: Path, columns: Iterable[str]) -> None:
        self._file: TextIO = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self.append([columns])

    def append(self, rows: Iterable[Iterable[Any]]) -> None:
        self._writer.writerows(rows)  # None becomes an empty field
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _confusion_csv(matrices: Mapping[int | None, Any]) -> str:
    """Render a block of rows per model."""
    num_classes = len(next(iter(matrices.values())))
    lines = [",".join(["client", "true_label", *map(str, range(num_classes))])]
    for client, counts in matrices.items():
        name = "" if client is None else client
        lines += [",".join(map(str, [name, k, *row])) for k, row in enumerate(counts.tolist())]
    return "\n".join(lines) + "\n"


def environment(run: RunInfo) -> dict[str, Any]:
    """Return what stands in environment.json: what the run came from."""
    return {
        "command": [Path(sys.argv[0]).name, *map(without_secrets, sys.argv[1:])],
        "overrides": [without_secrets(override) for override in run.overrides],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "packages": {name: version(name) for name in _PACKAGES},
        "plugins": plugins_in_use(run.config),
        **_checkout(),
        "seed": run.config.seed,
    }


def _checkout() -> dict[str, str | bool | None]:
    """Return the commit that the code is of, and whether it was changed since; None if installed.

    A package that was installed below some other repository is not of that repository's commit.
    """
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return {"git_commit": None, "git_dirty": None}
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": None if changes is None else bool(changes),
    }


def _git(*command: str) -> str | None:
    """Ask git about the checkout that the code runs from; None where there is no git or checkout."""
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), *command], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
