"""Seconds that a round of a deployment takes beyond training: fedexp beside a minimal app of Flower.

    python scripts/overhead.py --rounds 5

Both run on one federation: a SuperLink and three SuperNodes on 127.0.0.1, as a rehearsal starts them.
Flower's side is its own loop and FedAvg around a client that sends back what it was sent. fedexp trains
one step a round; what the same steps take with backend=inline is taken off. Runs take turns. The last
line is for a table; machine load makes all of these numbers larger.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvg

from fedexp import run
from fedexp.backends.deployment import joined
from fedexp.backends.flower_app import PACKAGE, survey_files
from fedexp.backends.rehearsal import shutdown
from fedexp.config.backend import DeploymentBackend
from fedexp.experiment import quieten_flower
from fedexp.flower.superlink import bundle

CLIENTS = 3
WORDS = ("model=logistic", "training.local_steps=1", "checkpoint.every=0")
SHAPES = ((10, 784), (10,))
"""The weights of that model."""

CLIENT = """
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    arrays = [array.numpy() for array in message.content["arrays"].values()]
    content = {"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(content), reply_to=message)
"""


def minimal(rounds: int) -> float:
    """Return the seconds of a round of the minimal app."""
    backend = DeploymentBackend()
    files = {**survey_files(), f"{PACKAGE}/client.py": CLIENT}
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=CLIENTS, min_available_nodes=CLIENTS)
    weights = ArrayRecord([np.zeros(shape, dtype=np.float32) for shape in SHAPES])
    with joined(backend, backend.nodes_here(CLIENTS), bundle(files)) as grid:
        while len(list(grid.get_node_ids())) < CLIENTS:
            time.sleep(0.1)
        start = time.perf_counter()
        strategy.start(grid=grid, initial_arrays=weights, num_rounds=rounds)
        return (time.perf_counter() - start) / rounds


def ours(rounds: int, backend: str, folder: Path) -> float:
    """Return the seconds of a round of fedexp, from the server's order to the new model."""
    run(*WORDS, f"rounds={rounds}", f"backend={backend}", folder=str(folder))
    timings = pd.read_csv(folder / "timings.csv")
    of_loop = timings[(timings["round"] > 0) & timings["phase"].isin(["train", "aggregate"])]
    return float(of_loop.groupby("round")["seconds"].sum().mean())


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each run")
    parser.add_argument("--times", type=int, default=3, help="that each run is repeated")
    args = parser.parse_args()
    quieten_flower()
    found: dict[str, list[float]] = {"Flower": [], "fedexp": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.times):
            found["Flower"].append(minimal(args.rounds))
            whole = ours(args.rounds, "deployment", Path(folder, f"there-{turn}"))
            training = ours(args.rounds, "inline", Path(folder, f"here-{turn}"))
            found["fedexp"].append(whole - training)
            print({name: round(values[-1], 2) for name, values in found.items()}, flush=True)
    shutdown()
    told = [f"{name} {statistics.median(values):.2f} s" for name, values in found.items()]
    packages = ", ".join(f"{name} {version(name)}" for name in ("flwr", "torch"))
    load = os.getloadavg()[0]
    print(f"a round beyond training: {', '.join(told)} ({packages}, load {load:.0f})")


if __name__ == "__main__":
    main()
