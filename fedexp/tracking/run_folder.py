"""What a run leaves in its folder; local files are the truth, and trackers mirror them.

Files that are written once appear whole or not at all; the CSV files grow by whole rounds, flushed as
they come, so that a run that is cut off keeps every round it completed.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import yaml
from safetensors.numpy import save as safetensors_bytes

from fedexp.config.schema import Config

if TYPE_CHECKING:  # torch comes with it, and showing a partition needs none
    from fedexp.models.networks import Weights

_LAST = ("partition.json", "partition.png", "model.safetensors", "confusion.csv", "confusion.png")
"""Files that not every run gets as far as writing."""
_PACKAGES = ("fedexp", "flwr", "ray", "torch", "torchvision", "numpy", "hydra-core", "omegaconf")
_SECRET = r"(?<![\w-])[\w-]*(?:api[_-]?key|token|secret|passw(?:or)?d)[\w-]*[\"']?[ \t]*[=:][ \t]*"
_VALUE = r"""(?:"(?:\\.|[^"\\])*"|'(?:''|[^'])*'|\[[^\]]*\]|[^\s,}\]]+)"""
HIDDEN = "<hidden>"


class Metric(NamedTuple):
    """One number, and exactly which one it is.

    Attributes:
        round: Round after which it was taken; 0 is the initial model.
        model: ``global`` or ``local``.
        split: ``train``, ``test`` or ``client_test``.
        subset: ``all``, or labels joined by hyphens.
        client: Partition id, or None where the number is not one client's.
        metric: ``accuracy`` (share, 0 .. 1), ``loss`` (mean cross-entropy in nats), ``bytes_down`` and
            ``bytes_up`` (of weights sent to and by clients in the round).
        value: The number.
    """

    round: int
    model: str
    split: str
    subset: str
    client: int | None
    metric: str
    value: float


@dataclass
class RoundReport:
    """All that a round left in the CSV files.

    Attributes:
        server_round: The round; 0 is the initial model.
        metrics: Its rows of metrics.csv.
        seconds: Phase -> seconds, as in timings.csv.
        failures: Clients that failed.
    """

    server_round: int = 0
    metrics: list[Metric] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: int = 0


def without_secrets(text: str) -> str:
    """Hide what follows the name of a key, token, secret or password and ``=`` or ``:``.

    Also what stands before ``@`` in an address.
    """
    text = re.sub(r"(://)[^\s/]+@", rf"\g<1>{HIDDEN}@", text)
    return re.sub(rf"(?i)({_SECRET}){_VALUE}", rf"\g<1>{HIDDEN}", text)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step: a reader sees the old one or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Render what a JSON file holds."""
    return (json.dumps(content, indent=2) + "\n").encode()


def config_bytes(config: Config) -> bytes:
    """Render what config.yaml holds."""
    return yaml.safe_dump(asdict(config), sort_keys=False).encode()


class RunFolder:
    """Writes one run's folder.

    Args:
        path: The folder; made if absent.
        config: Saved as config.yaml.
        overrides: What ``fedexp`` was told, so that environment.json can say how to repeat the run.
        on_round: Called with every round's report, once its rows are in the files.
    """

    def __init__(
        self,
        path: Path,
        config: Config,
        overrides: Sequence[str] = (),
        on_round: Callable[[RoundReport], None] = lambda report: None,
    ) -> None:
        self.path = path
        self._config, self._on_round = config, on_round
        self._started = time.monotonic()
        self._report = RoundReport()
        self._rounds = 0
        self._summary: dict[str, Any] = {}
        path.mkdir(parents=True, exist_ok=True)
        self._clear()
        self.write_bytes("config.yaml", config_bytes(config))
        self.write_json("environment.json", _environment(config, overrides))
        self.write_json("summary.json", self._head("running"))
        self._metrics = _Table(path / "metrics.csv", Metric._fields)
        self._timings = _Table(path / "timings.csv", ("round", "phase", "seconds"))
        self._failures = _Table(path / "failures.csv", ("round", "phase", "client", "reason"))

    def _clear(self) -> None:
        """Remove what a run that had this folder before may have got further to write."""
        if (self.path / "summary.json").is_file():
            for name in _LAST:
                if (self.path / name).is_file():
                    (self.path / name).unlink()

    def seconds(self) -> float:
        """Return the seconds since the folder was opened."""
        return time.monotonic() - self._started

    def write_text(self, name: str, text: str) -> None:
        """Write a text file in one step."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file in one step."""
        write_whole(self.path / name, content)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file in one step."""
        self.write_bytes(name, json_bytes(content))

    def write_model(self, weights: Weights) -> None:
        """Write model.safetensors."""
        self.write_bytes("model.safetensors", safetensors_bytes(dict(weights)))

    def add_metrics(self, metrics: Iterable[Metric]) -> None:
        """Append a round's numbers to metrics.csv, floats in full precision."""
        metrics = list(metrics)
        self._report.metrics += metrics
        self._metrics.append(
            ["" if value is None else value for value in metric] for metric in metrics
        )

    def add_timing(self, server_round: int, phase: str, seconds: float) -> None:
        """Append to timings.csv."""
        self._report.seconds[phase] = seconds
        self._timings.append([(server_round, phase, f"{seconds:.6f}")])

    def add_failures(self, server_round: int, phase: str, failures: Mapping[int, str]) -> None:
        """Append to failures.csv; ``failures`` maps a partition id to the reason."""
        if server_round:  # round 0 says which clients are faulty, not that they failed
            self._report.failures += len(failures)
        self._failures.append(
            (server_round, phase, client, reason) for client, reason in failures.items()
        )

    def end_round(self, server_round: int) -> None:
        """Pass on what was added since the last call."""
        report, self._report = self._report, RoundReport()
        report.server_round = self._rounds = server_round
        self._on_round(report)

    def report(self, server_round: int, metrics: list[Metric], already: Collection[int]) -> None:
        """Add the clients' last figures: to metrics.csv less the clients that are in it ``already``."""
        self.add_metrics(row for row in metrics if row.client not in already)
        self._report.metrics = metrics
        self.end_round(server_round)

    def finish(self, status: str, **summary: Any) -> dict[str, Any]:
        """Write and return summary.json; ``status`` is completed, failed or interrupted.

        A run ends once: what comes after it was written, such as a reader that goes away before the
        last line is printed, changes it no more.
        """
        if self._summary:
            return self._summary
        seconds = round(self.seconds(), 3)
        content = {**self._head(status), "seconds": seconds, "rounds": self._rounds, **summary}
        self.write_json("summary.json", content)
        self._summary = content
        self.close()
        return content

    def _head(self, status: str) -> dict[str, Any]:
        return {
            "status": status,
            "strategy": self._config.strategy.name,
            "seed": self._config.seed,
        }

    def close(self) -> None:
        """Close the CSV files."""
        for table in (self._metrics, self._timings, self._failures):
            table.close()


class _Table:
    def __init__(self, path: Path, columns: Iterable[str]) -> None:
        self._file: TextIO = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self.append([columns])

    def append(self, rows: Iterable[Iterable[Any]]) -> None:
        self._writer.writerows(rows)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _environment(config: Config, overrides: Sequence[str]) -> dict[str, Any]:
    return {
        "command": [Path(sys.argv[0]).name, *map(without_secrets, sys.argv[1:])],
        "overrides": [without_secrets(override) for override in overrides],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "packages": {name: version(name) for name in _PACKAGES},
        **_checkout(),
        "seed": config.seed,
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
