"""Clients on the machines of a Ray cluster: the same bits, whoever comes and goes.

Machines are network namespaces with an address, processes and temporary folders of their own: what the
driver reads and writes is not there for them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from support.cluster import Cluster, cluster
from support.helpers import summary
from support.namespaces import can_be_made

SCRIPT = Path(__file__).parents[1] / "support" / "where.py"
COMMON = ("strategy=where", "model=logistic", "training.local_epochs=1")
LOST, JOINS, UNFIT = 2, 3, 4
OTHER_SCIPY = """
info=/tmp/other/scipy-0.0.1.dist-info
mkdir -p $info
printf 'Metadata-Version: 2.1\\nName: scipy\\nVersion: 0.0.1\\n' > $info/METADATA
export PYTHONPATH=/tmp/other
"""


class Run(NamedTuple):
    """What a command left.

    Attributes:
        folder: The run's.
        where: For each round, the machines that its clients' replies came from.
        log: What stands in run.log.
    """

    folder: Path
    where: list[set[int]]
    log: str


class Driver:
    """Runs the script on the head's machine.

    Args:
        cluster: What it may join.
        folder: Where the script and its runs lie.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        shutil.copy(SCRIPT, folder)

    def run(self, name: str, *words: str, after: Callable[[], None] | None = None) -> Run:
        """Run it; call a function when the first round is over."""
        command = [sys.executable, "-u", SCRIPT.name, f"hydra.run.dir={name}", *COMMON, *words]
        (self.folder / "where.txt").unlink(missing_ok=True)
        driver = subprocess.Popen(
            [*self.cluster.inside(), *command],
            env=self.cluster.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert driver.stdout is not None
        said = []
        for line in driver.stdout:
            said.append(line)
            if after is not None and "round 1/" in line:
                after()
                after = None
        assert driver.wait() == 0, "".join(said)
        lines = (self.folder / "where.txt").read_text().splitlines()
        where = [set(map(int, line.split())) for line in lines]
        folder = self.folder / name
        return Run(folder, where, (folder / "run.log").read_text())


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with cluster(nodes=2, machines=5) as found:
        yield Driver(found, tmp_path_factory.mktemp("driver"))


def _same(one: Run, other: Run) -> bool:
    for name in ("metrics.csv", "failures.csv"):
        if (one.folder / name).read_bytes() != (other.folder / name).read_bytes():
            return False
    return bool(summary(one.folder)["model_sha256"] == summary(other.folder)["model_sha256"])


@pytest.mark.slow  # 2 to 4 min: nodes of Ray start and are missed
@pytest.mark.skipif(not can_be_made("unshare"), reason="needs root, iproute2 and util-linux")
def test_machines_come_and_go_and_the_bits_stay(driver: Driver) -> None:
    here = driver.run("here", "backend=inline", "rounds=6")
    address = f"backend.address={driver.cluster.address}"

    both = driver.run("both", address, "strategy.wait=1", "rounds=6")
    assert _same(both, here)
    assert set().union(*both.where) == {1, LOST}

    # Ray misses it after 15 s; its clients are asked again before that, if their worker is missed.
    lose = partial(driver.cluster.lose_at_work, LOST)
    lost = driver.run("lost", address, "strategy.wait=2", "rounds=6", after=lose)
    assert _same(lost, here)
    assert "10.213.78.4 has left the cluster" in lost.log
    assert lost.where[-1] == {1}

    def join() -> None:
        driver.cluster.start(JOINS)
        driver.cluster.start(UNFIT, OTHER_SCIPY)

    joined = driver.run("joined", address, "strategy.wait=1", "rounds=20", after=join)
    assert _same(joined, driver.run("long", "backend=inline", "rounds=20"))
    assert set().union(*joined.where) == {1, JOINS}
    assert "10.213.78.6 is not used: it has scipy 0.0.1 (" in joined.log
