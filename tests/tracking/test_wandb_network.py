"""W&B when the network is there, goes away, or never was: the experiment must not notice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SMALL = ("rounds=3", "training.local_epochs=1", "backend=inline", "tracking=wandb")
KEY = "k" * 40

# Like `python -m fedexp`, but ends the server whose process id it is told after round 1.
LOSES_THE_NETWORK = """
import os, runpy, sys, time
from fedexp.tracking.trackers import Trackers
server, mirror = int(sys.argv.pop(1)), Trackers.round
def told(self, report):
    if report.round == 2:
        os.kill(server, 9)
    start = time.perf_counter()
    mirror(self, report)
    print(f"mirrored in {time.perf_counter() - start:.3f} s")
Trackers.round = told
runpy.run_module("fedexp", run_name="__main__")
"""


@pytest.fixture
def server() -> Iterator[tuple[int, str]]:
    """Return the process id and the address of a W&B server."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parents[1] / "support" / "wandb_server.py")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process.pid, f"http://127.0.0.1:{process.stdout.readline().strip()}"
    process.kill()
    process.wait()
    process.stdout.close()


def _run(
    folder: Path, program: list[str], address: str, *overrides: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    told = {"WANDB_BASE_URL": address, "WANDB_API_KEY": KEY, **variables}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return subprocess.run(
        [sys.executable, *program, *SMALL, *overrides],
        cwd=folder,
        env={**kept, **told},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow  # at the end W&B waits 20 s for its server before it gives up
def test_a_network_that_goes_away_neither_stops_nor_slows_the_run(
    tmp_path: Path, server: tuple[int, str]
) -> None:
    pid, address = server
    program = ["-c", LOSES_THE_NETWORK, str(pid)]
    found = _run(tmp_path, program, address, "hydra.run.dir=out", WANDB_FINISH_TIMEOUT="3")
    assert found.returncode == 0, found.stderr
    spent = [float(line.split()[2]) for line in found.stdout.splitlines() if "mirrored" in line]
    assert len(spent) >= 4
    assert max(spent) < 1.0
    assert '"completed"' in (tmp_path / "out" / "summary.json").read_text()
    (folder,) = (tmp_path / "out" / "wandb").glob("run-*")
    expected = f"W&B did not receive all of this run: wandb sync {folder.relative_to(tmp_path)}"
    assert expected in found.stdout


@pytest.mark.slow  # waits for a server that is not there
def test_a_server_that_does_not_answer_leaves_the_runs_offline(tmp_path: Path) -> None:
    start = time.monotonic()
    found = _run(
        tmp_path,
        ["-m", "fedexp"],
        "http://127.0.0.1:9",  # the port of `discard`, which nobody serves
        "seed=0,1",
        "hydra.sweep.dir=out",
        "-m",
        WANDB_INIT_TIMEOUT="4",
    )
    assert found.returncode == 0, found.stderr
    assert time.monotonic() - start < 60
    assert found.stdout.count("W&B could not be reached, the run was kept offline") == 1
    assert found.stdout.count("W&B, offline: wandb sync") == 1
    assert len(list(tmp_path.glob("out/*/wandb/offline-run-*"))) == 2


@pytest.mark.slow  # waits for a server that is not there
def test_online_that_was_asked_for_is_not_replaced(tmp_path: Path) -> None:
    found = _run(
        tmp_path,
        ["-m", "fedexp"],
        "http://127.0.0.1:9",
        "tracking.mode=online",
        "hydra.run.dir=out",
        WANDB_INIT_TIMEOUT="2",
    )
    assert found.returncode == 1
    (line,) = [line for line in found.stderr.splitlines() if "run failed" in line]
    assert "W&B cannot be reached" in line
    assert "tracking.mode=offline needs no network" in line
    assert '"failed"' in (tmp_path / "out" / "summary.json").read_text()
