"""What was published, and how our runs are compared with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedexp.analysis import results
from fedexp.analysis.results import ISOLATED, Results
from fedexp.core.statistics import fairness
from fedexp.reproduce import niid_bench, pfllib_fmnist
from fedexp.reproduce.lines import Check, Direction, Line, curve


@dataclass(frozen=True)
class Quick:
    """The short form of an experiment, ``--quick``.

    Attributes:
        overrides: What it changes.
        check: From completed runs to the lines; None where it only says where the runs stand.
        shows: What it can and cannot show, in words.
    """

    overrides: tuple[str, ...]
    check: Callable[[Results], Sequence[Line]] | None = None
    shows: str = ""


@dataclass(frozen=True)
class Part:
    """A command of an experiment.

    Attributes:
        overrides: What follows ``fedexp``.
        runs: How many runs it makes.
    """

    overrides: tuple[str, ...]
    runs: int


@dataclass(frozen=True)
class Experiment:
    """A published experiment, run by one command or several.

    Attributes:
        published: What was published, in words.
        check: From completed runs to the lines.
        parts: Its commands.
        quick: Its short form; None where the whole takes a minute.
        may_diverge: Whether runs that diverge are among what was published, and are checked, too.
    """

    published: str
    check: Callable[[Results], Sequence[Line]]
    parts: tuple[Part, ...]
    quick: Quick | None = None
    may_diverge: bool = False

    @property
    def runs(self) -> int:
        """How many runs it consists of."""
        return sum(part.runs for part in self.parts)


def lesson(found: Results) -> list[Check]:
    """Check the course lesson: three clients, each without three digits.

    The published run is one draw of weights and batches, so accuracies are allowed to differ as much
    as seeds differ (the first round most); sizes of the partition and zeros must be exact.
    """
    isolated = found.runs["kind"] == ISOLATED
    (federated,), (alone,) = found.runs.index[~isolated], found.runs.index[isolated]
    sizes = results.partition(found.path(federated))["num_examples"]
    checks = [
        Check(f"images of client {client}", published, 0, sizes[client])
        for client, published in enumerate((13_729, 14_284, 14_185))
    ]
    finals = found.finals[
        (found.finals["split"] == "test") & (found.finals["metric"] == "accuracy")
    ]
    by_client = finals[finals["run"] == alone].set_index(["client", "subset"])["value"]
    unseen = ("1-3-7", "2-5-8", "4-6-9")
    for client, published in enumerate((0.657, 0.688, 0.685)):
        name = f"isolated client {client}, all digits"
        checks.append(Check(name, published, 0.03, by_client[client, "all"]))
        name = f"isolated client {client}, unseen {unseen[client]}"
        checks.append(Check(name, 0.0, 0.0, by_client[client, unseen[client]]))
    by_round = curve(found, federated)
    for server_round, published, tolerance in (
        (1, 0.855, 0.05),
        (2, 0.951, 0.01),
        (3, 0.961, 0.01),
    ):
        name = f"federated, all digits, round {server_round}"
        checks.append(Check(name, published, tolerance, by_round[server_round]))
    final = finals[finals["run"] == federated].set_index("subset")["value"]
    for subset, published in zip(unseen, (0.967, 0.956, 0.949), strict=True):
        checks.append(Check(f"federated, {subset}", published, 0.02, final[subset]))
    return checks


def mcmahan_2nn(found: Results) -> list[Check]:
    """Check the rounds to 97 % of McMahan et al. (arXiv 1602.05629), table 2, within half.

    A run that never gets there fails.
    """
    by_round = curve(found, 0)
    there = by_round.index[by_round >= 0.97]
    rounds = float(there.min()) if len(there) else math.inf
    return [Check("rounds to 97 % of test digits", 87, 43.5, rounds)]


def niid_fmnist(found: Results) -> list[Check]:
    """Check the best round of FedAvg on Fashion-MNIST, labels by Dir(0.5) (arXiv 2102.02079)."""
    return [Check("best accuracy in 50 rounds", 0.88, 0.02, curve(found, 0).max())]


LAST = 20
"""Rounds whose mean stands for where a run ends: with one client a round, a single one says little."""


def synthetic(found: Results) -> list[Direction]:
    """Check two directions on synthetic(1, 1), by seed.

    FedProx with 90 % stragglers against FedAvg that drops them (arXiv 1812.06127, figure 1), by the mean
    accuracy of the last 20 rounds; and q-FFL's q=1 against q=0 (arXiv 1905.10497, table 1), by the mean
    accuracy of the worst tenth of clients on their own test examples.
    """
    ends: dict[str, dict[int, float]] = {"fedprox": {}, "fedavg": {}}
    worst: dict[float, dict[int, float]] = {0.0: {}, 1.0: {}}
    of_clients = found.finals[
        (found.finals["split"] == "client_test") & (found.finals["metric"] == "accuracy")
    ].dropna(subset=["client"])
    for run in found.completed:
        strategy, seed = (str(found.runs.at[run, name]) for name in ("strategy", "seed"))
        if strategy in ends:
            ends[strategy][int(seed)] = float(curve(found, run).iloc[-LAST:].mean())
        else:
            own = of_clients.loc[of_clients["run"] == run, "value"].tolist()
            q = float(str(found.settings.at[run, "strategy.q"]))
            worst[q][int(seed)] = fairness(own)["worst10"]
    return [
        _direction("FedProx, FedAvg without its stragglers: accuracy", *ends.values()),
        _direction("q=1, q=0: accuracy of the worst tenth", worst[1.0], worst[0.0]),
    ]


def _direction(what: str, better: dict[int, float], other: dict[int, float]) -> Direction:
    seeds = sorted(better.keys() & other.keys())
    return Direction(what, [better[seed] for seed in seeds], [other[seed] for seed in seeds])


_NIID_BENCH = "experiment=niid_bench"
_PARTITIONS = "partition=iid,dirichlet"
_CLASSES = ("partition=classes", "partition.classes_per_client=1,2,3")
_FEDPROX = ("strategy=fedprox", "strategy.proximal_mu=0.01")

_PFLLIB = ("experiment=pfllib_fmnist", "strategy=fedavg,ditto,fedrep,fedper,fedbabu,local_only")

EXPERIMENTS = {
    "lesson": Experiment(
        "isolated 0.657 / 0.688 / 0.685, federated 0.961 in round 3",
        lesson,
        (Part(("experiment=lesson",), 2),),
    ),
    "mcmahan_2nn": Experiment(
        "97 % of the test digits in round 87",
        mcmahan_2nn,
        (Part(("experiment=mcmahan_2nn",), 1),),
        Quick(("rounds=20",)),
    ),
    "niid_fmnist": Experiment(
        "0.88 +- 0.02 at best in 50 rounds",
        niid_fmnist,
        (Part(("experiment=niid_fmnist",), 1),),
        Quick(("rounds=10",)),
    ),
    "niid_bench": Experiment(
        "SCAFFOLD collapses with one label a client, and with two in most seeds; 0.72 to 0.89 with two "
        "labels and more otherwise",
        niid_bench.niid_bench,
        (
            Part((_NIID_BENCH, *_CLASSES), 12),
            Part((_NIID_BENCH, *_CLASSES, *_FEDPROX), 3),
            Part((_NIID_BENCH, _PARTITIONS), 8),
            Part((_NIID_BENCH, _PARTITIONS, *_FEDPROX), 2),
        ),
        Quick(("rounds=10", "training.local_epochs=1"), niid_bench.quick, niid_bench.SHOWS),
        may_diverge=True,
    ),
    "pfllib_fmnist": Experiment(
        "own images after 2,000 rounds: FedAvg 0.80 and 0.86, personalised strategies 0.99 and 0.97",
        pfllib_fmnist.pfllib_fmnist,
        (
            Part(_PFLLIB, 6),
            Part((*_PFLLIB, "partition=dirichlet", "partition.alpha=0.1"), 6),
        ),
        Quick(
            ("rounds=10", "training.local_steps=50"),
            pfllib_fmnist.pfllib_fmnist,
            pfllib_fmnist.SHOWS,
        ),
    ),
    "synthetic": Experiment(
        "FedProx above FedAvg that drops 90 % stragglers; q=1 above q=0 for the worst tenth",
        synthetic,
        (
            Part(
                (
                    "experiment=synthetic_stragglers",
                    "strategy=fedprox",
                    "strategy.proximal_mu=1",
                    "clients.stragglers=0.9",
                ),
                5,
            ),
            Part(
                (
                    "experiment=synthetic_stragglers",
                    "strategy=fedavg",
                    "clients.dropout=0.9",
                    "clients.min_success=0",
                ),
                5,
            ),
            Part(("experiment=synthetic_fairness",), 6),
        ),
        Quick(("rounds=10",)),
    ),
}
