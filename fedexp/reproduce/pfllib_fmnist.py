"""PFLlib's tables on Fashion-MNIST: personalised strategies beside FedAvg, on the clients' own images."""

from __future__ import annotations

from fedexp.analysis.measures import of_tested_models
from fedexp.analysis.results import Results
from fedexp.reproduce.lines import Cells, Direction, Line, Told

PARTITIONS = {"classes": "#C=2", "dirichlet": "Dir(0.1)"}
"""Partition -> what a column is called."""

FEDAVG, ALONE = "fedavg", "local_only"

PUBLISHED = {
    FEDAVG: {"#C=2": 0.8041, "Dir(0.1)": 0.8585},
    "ditto": {"#C=2": 0.9944, "Dir(0.1)": 0.9747},
    "fedrep": {"#C=2": 0.9956, "Dir(0.1)": 0.9756},
    "fedper": {"#C=2": 0.9947, "Dir(0.1)": 0.9744},
    "fedbabu": {"#C=2": 0.9941, "Dir(0.1)": 0.9746},
}
"""Strategy -> partition -> accuracy on the clients' own test images after 2,000 rounds."""

MARGIN = 0.1
"""By how much personalised strategies must be above FedAvg; after 2,000 rounds it was 0.115 or more.
Fewer rounds leave FedAvg further behind, and hardly change what tells two labels apart."""

SHOWS = (
    "One seed, and the first rounds of 2,000: this shows that a model of one's own is far better than "
    "FedAvg's on one's own images, not which strategy is best, nor where FedAvg ends."
)
"""What a hundred rounds and fewer can and cannot show."""


def pfllib_fmnist(found: Results) -> list[Line]:
    """Check that every personalised strategy is above FedAvg, the mean over clients on their own images.

    The figures stand beside PFLlib's and are not judged: its FedAvg is still learning after hundreds of
    rounds. Isolated clients stand beside them; nobody published those.
    """
    ours = _own(found)
    lines: list[Line] = [
        Told(f"{strategy}, {column}, own images", ours[strategy, column], accuracy)
        for strategy, columns in PUBLISHED.items()
        for column, accuracy in columns.items()
    ]
    lines += [
        Told(f"isolated clients, {column}, own images", ours[ALONE, column])
        for column in PARTITIONS.values()
    ]
    for strategy in list(PUBLISHED)[1:]:
        for column in PARTITIONS.values():
            pair = [ours[strategy, column]], [ours[FEDAVG, column]]
            lines.append(Direction(f"{strategy} above {FEDAVG}, {column}", *pair, by=MARGIN))
    return lines


def _own(found: Results) -> Cells:
    """Return the mean over clients of the accuracy on their own test images, by strategy and column."""
    own = of_tested_models(found)
    of_clients = own[(own["metric"] == "accuracy") & (own["subset"] == "all")]
    cells = Cells()
    for run, mean in of_clients.groupby("run")["value"].mean().items():
        name = str(found.settings.at[run, "partition.name"])
        cells[str(found.runs.at[run, "strategy"]), PARTITIONS.get(name, name)] = float(mean)
    return cells
