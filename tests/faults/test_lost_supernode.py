"""SuperNodes and a SuperLink of their own, started by hand: apart, killed, refused and started anew."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from support.federation import Federation, can_be_apart, federation, main
from support.helpers import summary

from fedexp.backends.node_grid import SILENT
from fedexp.backends.sending import ABSENT

TIMEOUT = 100.0
"""Seconds for ``backend.timeout``: on a busy machine a ClientApp takes most of a minute to start."""

WORDS = (
    "model=logistic",
    "training.local_steps=2",
    "training.local_epochs=1",
    "checkpoint.every=1",
)


@contextmanager
def _driver(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-u", "-m", "fedexp", *WORDS, *words]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def _read_until(driver: subprocess.Popen[str], text: str) -> None:
    assert driver.stdout is not None
    read = []
    for line in driver.stdout:
        read.append(line)
        if text in line:
            return
    pytest.fail(f"the run ended before {text!r}: {''.join(read)}")


@pytest.mark.slow  # 1 to 5 min
@pytest.mark.skipif(not can_be_apart(), reason="needs root, iproute2, openssl and ssh-keygen")
def test_nodes_with_addresses_and_keys_of_their_own_change_no_bit(
    capfd: pytest.CaptureFixture[str],
) -> None:
    main()
    told = capfd.readouterr().out
    assert told.count("the same bytes") == 3


@pytest.mark.slow  # 3 to 8 min: a round waits for the timeout
def test_a_node_that_was_killed_costs_rounds_and_is_taken_again(tmp_path: Path) -> None:
    with (
        federation(3) as found,
        _driver(
            tmp_path,
            *found.overrides,
            f"backend.timeout={TIMEOUT}",
            "rounds=5",
            "hydra.run.dir=run",
        ) as driver,
    ):
        _read_until(driver, "round 1/")
        found.stop("node-1")
        _read_until(driver, "round 2/")
        found.start_node(1)
        assert driver.stdout is not None
        output = driver.stdout.read()
        assert driver.wait(60) == 0, output
    failures = pd.read_csv(tmp_path / "run" / "failures.csv")
    assert set(failures["client"]) == {1}
    assert 2 in set(failures["round"])
    assert not {4, 5} & set(failures["round"])
    assert set(failures["reason"]) <= {
        f"no reply within backend.timeout={TIMEOUT:g} s",
        ABSENT,
        SILENT,
    }
    assert summary(tmp_path / "run")["status"] == "completed"


@pytest.mark.slow  # 2 to 5 min
def test_a_run_goes_on_after_its_superlink_was_started_anew(tmp_path: Path) -> None:
    words = ("strategy=scaffold", "rounds=3")
    with (
        federation(3) as found,
        _driver(tmp_path, *words, *found.overrides, "hydra.run.dir=run") as driver,
    ):
        _read_until(driver, "round 1/")
        found.stop("superlink")
        assert driver.stdout is not None
        told = driver.stdout.read()
        assert driver.wait(120) == 1
        assert "the SuperLink does not answer, or refuses" in told
        assert "Traceback" not in told
        found.start_superlink()
        _restart_nodes(found)
        command = [sys.executable, "-m", "fedexp", "resume", "run"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    whole = [
        sys.executable,
        "-m",
        "fedexp",
        *WORDS,
        *words,
        "backend=inline",
        "hydra.run.dir=whole",
    ]
    subprocess.run(whole, cwd=tmp_path, capture_output=True, check=True)
    for name in ("metrics.csv", "failures.csv", "model.safetensors"):
        run, wanted = tmp_path / "run" / name, tmp_path / "whole" / name
        assert run.read_bytes() == wanted.read_bytes()


def _restart_nodes(found: Federation) -> None:
    for number in range(found.nodes):
        found.stop(f"node-{number}")
        found.start_node(number)


@pytest.mark.slow  # 1 to 3 min
@pytest.mark.skipif(not can_be_apart(), reason="needs root, iproute2, openssl and ssh-keygen")
def test_nodes_without_a_key_that_is_known_are_refused_and_the_run_goes_on(tmp_path: Path) -> None:
    with federation(1, apart=True) as found:
        found.make_key("stranger")
        strangers = {
            "wrong": ("stranger", "Failed to activate SuperNode"),
            "none": ("", "SuperNode authentication is enabled"),
        }
        for name, (key, _) in strangers.items():
            found.start_node(0, key=key, name=name)
        words = [*WORDS, *found.overrides, "clients.num=1", "partition=iid", "rounds=2"]
        command = [sys.executable, "-m", "fedexp", *words, "hydra.run.dir=run"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        until = time.monotonic() + 120
        running = {found.programs[name] for name in strangers}
        while any(program.poll() is None for program in running) and time.monotonic() < until:
            time.sleep(0.5)
        for name in strangers:
            assert found.programs[name].poll() not in (None, 0), found.log(name)
            (line,) = [line for line in found.log(name).splitlines() if "[code: " in line]
            assert strangers[name][1] in line
    assert pd.read_csv(tmp_path / "run" / "failures.csv").empty
    assert summary(tmp_path / "run")["status"] == "completed"
