"""A script of a user's: federated averaging whose replies say on which machine they were computed.

Machines are those of ``tests/support/cluster.py``. Its server writes ``where.txt``: a line a round.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path

from fedexp import Client, Job, Server, Setup, Strategy, Updates, Weights, main, strategies
from fedexp.core.replies import Carries

HERE = Path(__file__).parent


def machine() -> int:
    """Return the number of this machine in its network; 0 is the one that has the driver's files."""
    if HERE.exists():
        return 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect(("10.213.78.2", 9))  # sends nothing
        return int(one.getsockname()[0].split(".")[-1]) - 2


@strategies.register
@dataclass(frozen=True)
class Where(Strategy):
    """Federated averaging.

    Attributes:
        wait: Seconds that a client on another machine takes longer, from round 2 on.
    """

    carries = Carries(numbers={"machine": (0, 255)})

    name: str = "where"
    wait: float = 0.0

    def server(self, setup: Setup) -> Server:
        return WhereServer()

    def client(self) -> Client:
        return WhereClient(self.wait)


class WhereServer(Server):
    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        seen = " ".join(f"{update.numbers['machine']:g}" for update in updates)
        with (HERE / "where.txt").open("a") as file:
            file.write(f"{seen}\n")
        return updates.mean()


class WhereClient(Client):
    def __init__(self, wait: float) -> None:
        self.wait = wait

    def run(self, job: Job) -> None:
        where = machine()
        time.sleep(self.wait if where and job.round > 1 else 0)
        job.send(job.train(), numbers={"machine": where})


if __name__ == "__main__":
    main()
