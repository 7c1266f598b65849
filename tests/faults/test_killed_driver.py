"""A command that is killed takes Ray with it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

LIMIT = 30.0
"""Seconds after which nothing of a session may be left."""


ENDLESS = ("rounds=100000", "model=logistic", "training.local_steps=2")


@pytest.mark.slow  # 6 s after the kill, on a machine that does nothing else
@pytest.mark.parametrize("backend", ["ray", "flower"])
def test_nothing_of_ray_outlives_a_driver_that_was_killed(tmp_path: Path, backend: str) -> None:
    command = [
        sys.executable,
        "-u",
        "-m",
        "fedexp",
        f"backend={backend}",
        "backend.workers=2",
        *ENDLESS,
    ]
    memory = Path("/dev/shm")
    before = set(memory.glob("plasma*"))
    driver = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert any("round 2/" in line for line in driver.stdout)
    session = psutil.Process(driver.pid).children(recursive=True)
    assert len(session) >= 6  # server, raylet, two agents, two workers
    killed = time.monotonic()
    driver.kill()
    driver.wait()
    _, left = psutil.wait_procs(session, timeout=LIMIT)
    print(f"{backend}: {time.monotonic() - killed:.1f} s, left {left}")
    assert left == []
    assert set(memory.glob("plasma*")) <= before
