"""Kill runs at random instants, resume them, and compare every bit with runs that nobody disturbed.

    python tests/support/instants.py --kills 300
    python tests/support/instants.py --kills 20 --backends ray flower --seed 1

Every kill is a SIGKILL to a process that runs ``fedexp``, at an instant drawn from the time that the
whole command takes. What is left is resumed by ``fedexp resume``, which is killed now and then, too,
until the command is complete. Hashes of the models and metrics.csv must be those of the undisturbed
command. Where nothing had been written yet, the command is given again. Exits with 1 if anything differs.

Processes are forked from one that has imported everything, and draw no pictures: on ``inline``, a kill
costs a second or two in place of ten. With ``--fresh`` they are started as a user starts them; then most
kills come before anything is written.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from unittest import mock

import psutil

from fedexp.config.composition import compose_config
from fedexp.data.loading import load

SHORT = ["model=logistic", "training.local_steps=2", "training.batch_size=16"]
MANY = ["clients=cross_silo", "partition=dirichlet", "clients.num=8"]
FAULTS = [
    "clients.dropout=0.2",
    "clients.stragglers=0.3",
    "clients.byzantine.fraction=0.2",
    "clients.byzantine.kind=gaussian",
]
COMMANDS = {
    "fedavg, all that goes wrong": [*MANY, *FAULTS, "clients.fraction_evaluate=0.5", "rounds=10"],
    "scaffold, half a cohort": [
        *MANY,
        "strategy=scaffold",
        "clients.fraction_train=0.5",
        "rounds=8",
    ],
    "fedadam, checkpoints every 3": [*MANY, "strategy=fedadam", "checkpoint.every=3", "rounds=10"],
    "fedyogi, batch norm": [
        "strategy=fedyogi",
        "model=mobilenet_v3_small",
        "training.local_steps=1",
        "rounds=2",
        "partition=iid",
        "partition.samples_per_client=16",
        "clients.num=2",
    ],
    "patience and metrics": [
        *MANY,
        "strategy=fedavgm",
        "rounds=30",
        "stop.patience=3",
        "stop.min_delta=0.02",
        "metrics=[accuracy,loss,macro_f1]",
    ],
    "isolated": ["strategy=local_only", "rounds=6", "clients.fraction_evaluate=1.0"],
    "centralized": ["strategy=centralized", "rounds=6"],
    "a multirun": ["-m", "strategy=fedavg,fednova,qfedavg", "rounds=4", "clients.dropout=0.3"],
}
"""What is killed: words -> a command's overrides."""

FEW = ("fedavg, all that goes wrong", "scaffold, half a cohort", "a multirun")
"""Those that are worth the seconds that Ray takes."""

Result = dict[str, tuple[str, str]]
"""Job -> hash of its model, hash of its metrics.csv."""


@dataclass
class Tally:
    """What came of the kills."""

    kills: int = 0
    before_anything: int = 0
    different: int = 0


def command_of(name: str, backend: str, folder: Path) -> list[str]:
    """Return the words of a command that writes a folder."""
    words = [*SHORT, *COMMANDS[name]]
    multirun = words.count("-m")
    where = f"hydra.{'sweep' if multirun else 'run'}.dir={folder}"
    workers = [] if backend == "inline" else ["backend.workers=1"]
    options = [word for word in words if word != "-m"]
    # A later choice of a group takes the place of an earlier one, as people expect it.
    last = {word.partition("=")[0]: word for word in options}
    return [*["-m"] * multirun, f"backend={backend}", *workers, *last.values(), where]


class Process:
    """``fedexp WORDS`` in a process of its own, quiet.

    Args:
        words: What stands on the command line.
        log: Where its output goes.
        forked: Whether it is made from this process, which must have imported what it needs.
    """

    def __init__(self, words: Sequence[str], log: Path, *, forked: bool) -> None:
        self._popen = None
        if forked:
            self.pid = os.fork()
            if self.pid == 0:
                _become(words, log)
        else:
            with log.open("ab") as output:
                self._popen = subprocess.Popen(
                    [sys.executable, "-m", "fedexp", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            self.pid = self._popen.pid

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        if self._popen is not None:
            return self._popen.wait()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def killed_after(self, seconds: float) -> bool:
        """Kill it after some seconds; return whether it was still there."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._is_over():
                return False
            time.sleep(min(0.002, max(0.0, end - time.monotonic())))
        if self._is_over():
            return False
        below = psutil.Process(self.pid).children(recursive=True)
        os.kill(self.pid, signal.SIGKILL)
        self.wait()
        for child in below:  # Ray's processes would be there for another minute
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(below, timeout=10)
        return True

    def _is_over(self) -> bool:
        if self._popen is not None:
            return self._popen.poll() is not None
        # Looked at, not waited for: somebody waits for the exit code later.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _become(words: Sequence[str], log: Path) -> None:
    """Be ``fedexp WORDS``, in a process that was forked."""
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        from fedexp.__main__ import main

        sys.argv = ["fedexp", *words]
        main()
    finally:
        os._exit(1)


def result_of(folder: Path) -> Result:
    """Return the hashes of all jobs in a folder."""
    found = {}
    for path in sorted(folder.rglob("summary.json")):
        summary = json.loads(path.read_text())
        metrics = (path.parent / "metrics.csv").read_bytes()
        found[str(path.parent.relative_to(folder))] = (
            summary.get("model_sha256", summary["status"]),
            sha256(metrics).hexdigest(),
        )
    return found


def whole(name: str, backend: str, folder: Path, fresh: bool) -> tuple[Result, float]:
    """Run a command undisturbed; return what it comes to, and its seconds.

    Raises:
        RuntimeError: If it fails.
    """
    start, log = time.monotonic(), folder.with_suffix(".log")
    process = Process(command_of(name, backend, folder), log, forked=not fresh)
    code = process.wait()
    if code:
        raise RuntimeError(f"{name} on {backend} ended with {code}:\n{log.read_text()}")
    return result_of(folder), time.monotonic() - start


def disturbed(
    name: str,
    backend: str,
    folder: Path,
    seconds: float,
    draw: random.Random,
    tally: Tally,
    fresh: bool,
) -> Result:
    """Kill a command at a random instant, go on until it is complete, and return what it comes to.

    Raises:
        RuntimeError: If what is left cannot be resumed.
    """
    log, forked = folder.with_suffix(".log"), not fresh
    command = command_of(name, backend, folder)
    process = Process(command, log, forked=forked)
    again = process.killed_after(draw.uniform(0, seconds))
    while again:
        tally.kills += 1
        resumable = any((folder / name).is_file() for name in ("config.yaml", "sweep.json"))
        tally.before_anything += not resumable
        words = ["resume", str(folder)] if resumable else command
        process = Process(words, log, forked=forked)
        again = draw.random() < 0.3 and process.killed_after(draw.uniform(0, seconds))
    code = process.wait()
    if code:
        raise RuntimeError(f"{name} on {backend}, {folder}: ended with {code}:\n{log.read_text()}")
    return result_of(folder)


def kill_many(
    kills: int, backends: Sequence[str], seed: int, folder: Path, *, fresh: bool = False
) -> Tally:
    """Kill until there were so many kills, on every backend in turn, and count what differs.

    Args:
        kills: How many.
        backends: A backend that stands there twice gets two commands in a turn.
        seed: Draws commands and instants.
        folder: Everything is written here.
        fresh: Start every process anew, in place of forking this one.
    """
    draw, tally = random.Random(seed), Tally()
    expected: dict[tuple[str, str], tuple[Result, float]] = {}
    number = 0
    while tally.kills < kills:
        backend = backends[number % len(backends)]
        name = draw.choice(list(COMMANDS) if backend == "inline" else FEW)
        if (name, backend) not in expected:
            expected[name, backend] = whole(name, backend, folder / f"whole-{len(expected)}", fresh)
        result, seconds = expected[name, backend]
        where = folder / str(number)
        try:
            found = disturbed(name, backend, where, seconds, draw, tally, fresh)
            same = found == result
        except RuntimeError as error:
            print(error, flush=True)
            same = False
        if not same:
            tally.different += 1
            print(f"DIFFERENT: {name} on {backend}: {where}", flush=True)
        number += 1
        if number % 10 == 0:
            print(f"{number} commands, {tally}", flush=True)
    return tally


def _warm_up(backends: Sequence[str]) -> None:
    """Do once what takes most of a short command's time, so that forked processes need not."""
    for module in ("__main__", "experiment", "resume", "analysis.tables"):
        import_module(f"fedexp.{module}")
    for backend in backends:
        import_module(f"fedexp.backends.{backend}")
    load(compose_config().dataset)
    mock.patch("fedexp.federation.conclusion.drawn", return_value=({}, [])).start()


def main() -> None:
    """Kill, resume, compare, say what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--backends", nargs="+", default=["inline"])
    parser.add_argument("--seed", type=int, default=0, help="draws commands and instants")
    parser.add_argument("--fresh", action="store_true", help="fork nothing")
    parser.add_argument("--folder", type=Path, help="kept; otherwise one that is removed")
    args = parser.parse_args()
    if not args.fresh:
        _warm_up(args.backends)

    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        tally = kill_many(args.kills, args.backends, args.seed, folder, fresh=args.fresh)
    print(
        f"{tally.kills} kills on {', '.join(args.backends)}: {tally.different} differ "
        f"({tally.before_anything} before anything was written)"
    )
    sys.exit(1 if tally.different else 0)


if __name__ == "__main__":
    main()
