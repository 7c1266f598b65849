"""What every partition is held to, wherever it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support.helpers import config

from fedexp.config.clients import ClientsConfig
from fedexp.core.options import FedexpError
from fedexp.partitions import Partition
from fedexp.partitions.base import deal_pools, make_partition, until_large_enough
from fedexp.partitions.classes import Classes
from fedexp.partitions.dirichlet import Dirichlet
from fedexp.partitions.exclude import Exclude
from fedexp.partitions.feature_noise import FeatureNoise
from fedexp.partitions.iid import Iid
from fedexp.partitions.quantity import Quantity
from fedexp.partitions.shards import Shards

LABELS = np.arange(10) % 3


@dataclass(frozen=True)
class Dealt(Partition):
    """Deals what it is told."""

    name: str = "dealt"
    parts: Any = ()

    def deal(self, labels: Any, num_clients: int, seed: int) -> Sequence[Any]:
        return [np.asarray(part) for part in self.parts]


def _deal(*parts: Any, clients: int = 2) -> Any:
    return make_partition(Dealt(parts=parts), LABELS, clients, 0)


def test_what_is_dealt_is_who_holds_what() -> None:
    dealt = _deal([9, 0, 4], [3])
    assert dealt.num_clients == 2
    assert [dealt.client(k).tolist() for k in range(2)] == [[9, 0, 4], [3]]
    assert dealt.indices.dtype == np.int64
    assert _deal(range(10), clients=1).sizes.tolist() == [10], "to the last example"


@pytest.mark.parametrize(
    ("parts", "wrong"),
    [
        (([0, 1], [1, 2]), "gives an example to more than one client"),
        (([0, 0], [1, 2]), "gives an example to more than one client"),
        (([0, 1], [2, 10]), "deals positions from 0 to 10; they must lie between 0 and 9"),
        (([-1, 1], [2, 3]), "deals positions from -1 to 3; they must lie between 0 and 9"),
        (([0], [1], [2]), "makes 3 partitions, clients.num is 2"),
        (([0, 1],), "makes 1 partitions, clients.num is 2"),
        ((), "makes 0 partitions, clients.num is 2"),
        (([0, 1], []), "leaves 1 of 2 clients without an example (the first is client 1)"),
        (([], []), "leaves 2 of 2 clients without an example (the first is client 0)"),
    ],
)
def test_what_must_not_be_dealt(parts: Any, wrong: str) -> None:
    with pytest.raises(FedexpError) as caught:
        _deal(*parts)
    assert str(caught.value).startswith(f"partition=dealt {wrong}")


@pytest.mark.parametrize(
    "parts",
    [
        ([0.0, 1.5], [2.0]),
        ([True, False, True], [False]),
        ([[0, 1], [2, 3]], [[4, 5]]),
    ],
    ids=["halves", "a mask", "a table"],
)
def test_what_are_no_positions_is_refused_in_one_line(parts: Any) -> None:
    with pytest.raises(FedexpError, match=r"^partition=dealt "):
        _deal(*parts)


def test_a_page_that_deals_nothing_says_so() -> None:
    @dataclass(frozen=True)
    class Idle(Partition):
        name: str = "idle"

    with pytest.raises(NotImplementedError, match="partition=idle does not say who holds what"):
        make_partition(Idle(), LABELS, 2, 0)
    assert Idle().label == "idle"
    assert (Idle().subsets(), Idle().describe(2)) == ({}, {})


def test_pools_are_dealt_in_their_order_by_hand() -> None:
    pools = [np.array([5, 6, 7]), np.array([1, 2])]
    counts = np.array([[1, 0, 2], [0, 2, 0]])
    dealt = deal_pools(pools, counts)
    assert [part.tolist() for part in dealt] == [[5], [1, 2], [6, 7]]


def test_draws_end_with_the_first_that_is_large_enough() -> None:
    draws = iter([np.array([[4, 1], [0, 1]]), np.array([[2, 2], [1, 1]]), np.array([[3, 3]])])
    counts = until_large_enough(lambda: next(draws), 3, "partition=mine", 2)
    assert counts.tolist() == [[2, 2], [1, 1]]
    with pytest.raises(FedexpError, match=r"at best the smallest had 2\)"):
        until_large_enough(lambda: np.array([[2, 9]]), 3, "partition=mine", 2)


def _errors(partition: Partition, clients: int) -> list[str]:
    return list(partition.errors(config(partition=partition, clients=ClientsConfig(clients))))


@pytest.mark.parametrize(
    ("partition", "clients", "options"),
    [
        (Iid(samples_per_client=1_333), 3, []),
        (Iid(samples_per_client=1_334), 3, ["partition.samples_per_client must be <= 1333 for"]),
        (Dirichlet(min_size=1_333), 3, []),
        (Dirichlet(min_size=1_334), 3, ["partition.min_size must be <= 1333 for clients.num=3"]),
        (Quantity(min_size=401), 10, ["partition.min_size must be <= 400 for clients.num=10"]),
        (Shards(shards_per_client=400), 10, []),
        (Shards(shards_per_client=401), 10, ["partition.shards_per_client must be <= 400 for"]),
        (Classes(classes_per_client=10), 3, []),
        (Classes(classes_per_client=11), 3, ["partition.classes_per_client must be <= 10, the"]),
        (Exclude(exclude=[[1], [2]]), 2, []),
        (Exclude(exclude=[[1], [2]]), 3, ["partition.exclude must hold one list of labels per"]),
        (Exclude(exclude=[[1], [10]]), 2, ["partition.exclude[1] must hold labels from 0 to 9"]),
        (Exclude(exclude=[list(range(10)), []]), 2, ["partition.exclude[0] leaves the client"]),
        (Exclude(seed=2**32, exclude=[[]]), 1, [f"partition.seed must be < {2**32}"]),
        (FeatureNoise(), 3, []),
    ],
)
def test_rules_between_options(partition: Partition, clients: int, options: list[str]) -> None:
    lines = _errors(partition, clients)
    assert len(lines) == len(options)
    for line, option in zip(lines, options, strict=True):
        assert line.startswith(option)


@pytest.mark.parametrize(
    ("partition", "label"),
    [
        (Iid(), "iid"),
        (Dirichlet(alpha=0.3), "dir0.3"),
        (Quantity(alpha=2.0), "quantity2"),
        (Shards(shards_per_client=3), "shards3"),
        (Classes(classes_per_client=4), "classes4"),
        (FeatureNoise(noise_std=0.3), "noise0.3"),
        (Exclude(), "exclude"),
    ],
)
def test_a_label_names_the_option_that_matters(partition: Partition, label: str) -> None:
    assert partition.label == label
