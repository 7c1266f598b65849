"""What a run leaves in its folder; local files are the truth, and trackers mirror them.

Files that are written once appear whole or not at all; the CSV files grow by whole rounds, flushed as
they come, so that a run that is cut off keeps every round it completed. A folder belongs to one run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.numpy import save as safetensors_bytes

from fedexp.config.schema import config_bytes
from fedexp.core import owner
from fedexp.core.commands import command
from fedexp.core.files import holds_run, json_bytes, unwritable, write_whole
from fedexp.core.options import FedexpError
from fedexp.core.tables import Position, Table, as_dict
from fedexp.federation.conclusion import head
from fedexp.federation.events import (
    COMPLETED,
    DIVERGED,
    Ending,
    Failure,
    Listener,
    Measurement,
    RoundReport,
    RunInfo,
)
from fedexp.tracking.environment import environment

MODELS = "models"
"""The folder of the models that ``save_every`` keeps."""

TABLES = {
    "metrics.csv": Measurement._fields,
    "timings.csv": ("round", "phase", "seconds"),
    "failures.csv": Failure._fields,
}
"""The files that grow by rounds, and their columns."""


class RunFolder(Listener):
    """Writes one run's folder.

    Attributes:
        summary: What stands in summary.json at the end.
    """

    def __init__(self) -> None:
        self.summary: dict[str, Any] = {}
        self._tables: dict[str, Table] = {}

    def begin(self, run: RunInfo) -> None:
        """Make the folder, or take up what an earlier process left there, and say that a run goes on.

        Raises:
            FedexpError: If the folder cannot be written, another process writes it, or it is another
                run's.
        """
        self.path = run.folder
        with unwritable(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._hold = owner.take(self.path)
            with self._held(until_error=True):
                self._begin(run)

    def _begin(self, run: RunInfo) -> None:
        if not run.again and run.resume is None:
            refuse_occupied(self.path)
        self._write("config.yaml", config_bytes(run.config))
        if run.resume is None:
            self._write("environment.json", json_bytes(environment(run)))
        self._open_tables({} if run.resume is None else run.resume["files"])
        self._write("summary.json", json_bytes(head(run.config, "running")))

    def positions(self) -> dict[str, dict[str, Any]]:
        """Return how far each table has grown, so that a checkpoint can say what belongs to it.

        All of that is on the disk then.
        """
        return {name: as_dict(table.kept_position()) for name, table in self._tables.items()}

    def dealt(self, partition: Mapping[str, Any]) -> None:
        """Write partition.json.

        Raises:
            FedexpError: If it cannot be written.
        """
        with unwritable(self.path):
            self._write("partition.json", json_bytes(partition))

    def round(self, report: RoundReport) -> None:
        """Append to the CSV files; floats in full precision.

        Raises:
            FedexpError: If a file was removed or changed by somebody else.
        """
        with unwritable(self.path):
            if report.weights is not None:
                (self.path / MODELS).mkdir(exist_ok=True)
                name = f"{MODELS}/round-{report.round}.safetensors"
                self._write(name, safetensors_bytes(dict(report.weights)))
            self._tables["failures.csv"].append(report.failures)
            self._tables["timings.csv"].append(
                (report.round, phase, f"{seconds:.6f}") for phase, seconds in report.seconds.items()
            )
            self._tables["metrics.csv"].append(report.measurements)

    def end(self, ending: Ending) -> None:
        """Write what there is of the final models, and summary.json last: it says that all is there."""
        with self._held(), unwritable(self.path):
            metrics = self._tables["metrics.csv"]
            metrics.append(m for m in ending.measurements if m.client not in ending.reported)
            metrics.append(ending.further)
            for table in self._tables.values():
                table.close(checked=ending.status in (COMPLETED, DIVERGED))
            if ending.weights is not None:
                self._write("model.safetensors", safetensors_bytes(dict(ending.weights)))
            if ending.best is not None:
                self._write("best.safetensors", safetensors_bytes(dict(ending.best)))
            if ending.confusion is not None:
                self._write("confusion.csv", _confusion_csv(ending.confusion).encode())
            for name, picture in ending.pictures.items():
                self._write(f"{name}.png", picture)
            self.summary = {**ending.summary, "metrics_csv": as_dict(metrics.position())}
            self._write("summary.json", json_bytes(self.summary))

    @contextmanager
    def _held(self, *, until_error: bool = False) -> Iterator[None]:
        """Give the folder back after a block; where it is to be kept, only if the block fails."""
        try:
            yield
        except BaseException:
            self._hold.give_back()
            raise
        if not until_error:
            self._hold.give_back()

    def _open_tables(self, positions: Mapping[str, Any]) -> None:
        for name, columns in TABLES.items():
            position = Position(**positions[name]) if name in positions else None
            self._tables[name] = Table(self.path / name, columns, position)

    def _write(self, name: str, content: bytes) -> None:
        write_whole(self.path / name, content)


def refuse_occupied(folder: Path) -> None:
    """Refuse a folder that holds a run.

    Raises:
        FedexpError: With what can be done about it.
    """
    if holds_run(folder):
        raise FedexpError(
            f"{folder} holds a run already: choose another folder, or go on with that run by "
            f"{command('resume', str(folder))}"
        )


def _confusion_csv(matrices: Mapping[int | None, Any]) -> str:
    """Render a block of rows per model."""
    num_classes = len(next(iter(matrices.values())))
    lines = [",".join(["client", "true_label", *map(str, range(num_classes))])]
    for client, counts in matrices.items():
        name = "" if client is None else client
        lines += [",".join(map(str, [name, k, *row])) for k, row in enumerate(counts.tolist())]
    return "\n".join(lines) + "\n"
