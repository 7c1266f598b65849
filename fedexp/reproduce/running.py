"""The runs of a reproduction: one command after another, stopped by Ctrl-C, gone on with later."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fedexp.analysis.results import COMPLETED, DIVERGED
from fedexp.core.files import SWEEP_FILE, json_bytes, unwritable, write_whole
from fedexp.core.options import FedexpError
from fedexp.core.pace import duration
from fedexp.reproduce.published import EXPERIMENTS, Experiment, Part

FILE = "reproduce.json"
"""What a folder is the reproduction of, so that it can be gone on with."""


@dataclass(frozen=True)
class Reproduction:
    """What is run.

    Attributes:
        name: The experiment's.
        quick: Whether its short form.
        overrides: What else the command was given.
    """

    name: str
    quick: bool
    overrides: tuple[str, ...]

    @property
    def experiment(self) -> Experiment:
        """The experiment."""
        return EXPERIMENTS[self.name]

    @property
    def changes(self) -> tuple[str, ...]:
        """What every command of it is given beside its own overrides."""
        quick = self.experiment.quick if self.quick else None
        return (*(quick.overrides if quick else ()), *self.overrides)

    def write(self, folder: Path) -> None:
        """Note in a folder what it is for.

        Raises:
            FedexpError: If it cannot be written.
        """
        with unwritable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / FILE, json_bytes(asdict(self)))


def read(folder: Path, name: str) -> Reproduction:
    """Return what a folder is the reproduction of.

    Args:
        folder: Where it was begun.
        name: Which experiment it must be.

    Raises:
        FedexpError: If it is none, or of another experiment.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text())
        found = Reproduction(content["name"], bool(content["quick"]), tuple(content["overrides"]))
    except FileNotFoundError:
        raise FedexpError(f"--resume {folder}: no reproduction was begun here ({FILE})") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FedexpError(f"--resume {folder}: {FILE} cannot be read: {error}") from None
    if found.name != name:
        raise FedexpError(
            f"--resume {folder}: this is a reproduction of {found.name}, not of {name}"
        )
    return found


def new_folder(name: str) -> Path:
    """Return where a reproduction that begins now is written."""
    stamp = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{secrets.token_hex(2)}"
    return Path("results") / name / stamp


def run_parts(job: Reproduction, folder: Path, further: Sequence[str] = ()) -> int:
    """Run what is not complete, one command after another.

    Args:
        job: What to run.
        folder: Where it is written; the second and later commands may have been begun there before.
        further: Overrides of runs that go on.

    Returns:
        The exit code of the first command that did not end well, 0 if all did. Runs that diverge are
        well where the experiment allows it.
    """
    parts = job.experiment.parts
    pace = _Pace(parts)
    for number, part in enumerate(parts):
        where = folder if len(parts) == 1 else folder / str(number + 1)
        if _is_over(where, part.runs):
            print(f"{where}: complete already", flush=True)
            continue
        begun = (where / SWEEP_FILE).is_file() or (where / "config.yaml").is_file()
        words = ["resume", str(where)] if begun else [*part.overrides, *job.changes]
        if len(parts) > 1:
            print(
                f"{pace.begins(number, _num_over(where))}: fedexp {' '.join([*words, *further])}",
                flush=True,
            )
        code = _run([*words, *further], None if begun else where)
        if code == 1 and job.experiment.may_diverge and _is_over(where):
            code = 0
        if code:
            return code
    return 0


class _Pace:
    """Says which runs a command makes, and how long the rest takes, by the runs of this process."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._runs = [part.runs for part in parts]
        self._since, self._made, self._last = time.monotonic(), 0, 0

    def begins(self, number: int, complete: int = 0) -> str:
        """Return ``part 2 of 4, runs 13 to 15 of 25, 8 min left``."""
        before, total = sum(self._runs[:number]), sum(self._runs)
        told = (
            f"part {number + 1} of {len(self._runs)}, runs {before + 1} to "
            f"{before + self._runs[number]} of {total}"
        )
        self._made += self._last
        self._last = self._runs[number] - complete
        if not self._made:
            return told
        each = (time.monotonic() - self._since) / self._made
        return f"{told}, {duration(each * (total - before - complete))} left"


def _is_over(folder: Path, runs: int | None = None) -> bool:
    """Say whether all runs in a folder came to their end, or diverged.

    Args:
        folder: A command's.
        runs: How many there must be; None is all that were begun.
    """
    begun = len(list(folder.rglob("summary.json")))
    return _num_over(folder) == (begun or 1 if runs is None else runs)


def _num_over(folder: Path) -> int:
    told = map(_status, folder.rglob("summary.json"))
    return sum(status in (COMPLETED, DIVERGED) for status in told)


def _status(summary: Path) -> str | None:
    try:
        return str(json.loads(summary.read_text())["status"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # fedexp resume says what is wrong with it


def _run(words: Sequence[str], folder: Path | None) -> int:
    """Run fedexp and return its exit code; what would end this process ends fedexp, and this goes on.

    fedexp has a process group of its own, so that a signal reaches it once: from here, whether it came
    from a terminal, to a whole group, or to this process alone.

    Args:
        words: What follows ``fedexp``.
        folder: Where it writes; None where the words say so.
    """
    where = [] if folder is None else [f"hydra.sweep.dir={folder}", f"hydra.run.dir={folder}"]
    process = subprocess.Popen([sys.executable, "-m", "fedexp", *words, *where], process_group=0)
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [
        signal.signal(number, lambda received, _: process.send_signal(received))
        for number in signals
    ]
    try:
        return process.wait()
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
