from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedexp.config.clients import ClientsConfig
from fedexp.config.schema import Config
from fedexp.core.options import FedexpError
from fedexp.data.assignment import Assignment
from fedexp.data.federated import FederatedData
from fedexp.data.held_out import hold_out, num_held_out
from fedexp.datasets.mnist5k import Mnist5k
from fedexp.federation.dealing import describe_partition, federate, validation_sha256
from fedexp.partitions import Partition
from fedexp.partitions.classes import Classes
from fedexp.partitions.dirichlet import Dirichlet
from fedexp.partitions.dirichlet_balanced import DirichletBalanced
from fedexp.partitions.exclude import Exclude
from fedexp.partitions.feature_noise import FeatureNoise
from fedexp.partitions.flwr_datasets import FlwrDatasets
from fedexp.partitions.iid import Iid
from fedexp.partitions.quantity import Quantity
from fedexp.partitions.shards import Shards


def _config(
    partition: Partition, num: int = 7, seed: int = 0, share: float = 0.0, by: str = "server"
) -> Config:
    dataset = Mnist5k(validation=share, validation_by=by)
    return Config(seed=seed, dataset=dataset, partition=partition, clients=ClientsConfig(num=num))


def _parts(data: FederatedData) -> list[np.ndarray]:
    own = [] if data.client_val is None else data.client_val.parts()
    return [*data.partition.pooled(), *own, data.server_val]


@pytest.mark.parametrize(
    ("share", "num", "expected"),
    [
        (0.1, 10, 1),
        (0.1, 9, 0),
        (0.29, 100, 29),
        (0.9, 1, 0),
        (0.999, 2, 1),
        (0.5, 3, 1),
        (0, 7, 0),
    ],
)
def test_shares_are_rounded_down_and_one_is_left(share: float, num: int, expected: int) -> None:
    assert num_held_out(share, num) == expected


def test_held_out_by_hand() -> None:
    # Client 0 has four of label 0 and two of label 1, client 1 one of label 2.
    held = Assignment.of([np.array([5, 3, 1, 0, 2, 4]), np.array([6])])
    labels = np.array([0, 0, 1, 0, 1, 0, 2])
    kept, out = hold_out(held, labels, 0.5, 0, "client_validation")
    assert out.sizes.tolist() == [3, 0]
    assert np.bincount(labels[out.client(0)]).tolist() == [2, 1]
    assert kept.client(1).tolist() == [6]
    order = [position for position in held.client(0) if position not in out.client(0)]
    assert kept.client(0).tolist() == order


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
    st.integers(0, 2**32),
)
def test_held_out_and_kept_are_what_was_held(
    sizes: list[int], share: float, num_labels: int, seed: int
) -> None:
    total = sum(sizes)
    rng = np.random.default_rng(seed)
    held = Assignment.of(np.split(rng.permutation(total), np.cumsum(sizes)[:-1]))
    labels = rng.integers(0, num_labels, total) if num_labels else None
    kept, out = hold_out(held, labels, share, seed, "client_validation")
    for client, size in enumerate(sizes):
        both = [*kept.client(client), *out.client(client)]
        assert sorted(both) == sorted(held.client(client))
        assert len(out.client(client)) == num_held_out(share, size)
        assert len(kept.client(client)) >= 1
        if labels is not None:
            mine = np.bincount(labels[held.client(client)], minlength=num_labels)
            taken = np.bincount(labels[out.client(client)], minlength=num_labels)
            # No label is used up before it must be, and none is far from its share.
            if len(kept.client(client)) >= (mine > 0).sum():
                assert ((mine - taken)[mine > 0] >= 1).all()
            assert (np.abs(taken - share * mine) <= num_labels).all()


PARTITIONS = [
    Iid(),
    Exclude(exclude=[[1, 3, 7], [2, 5, 8], [4], [5], [6], [7], [8]]),
    Dirichlet(alpha=0.3),
    DirichletBalanced(alpha=0.3),
    Classes(),
    Quantity(),
    Shards(),
    FeatureNoise(),
]


@pytest.mark.parametrize("by", ["server", "clients", "both"])
@pytest.mark.parametrize("partition", PARTITIONS, ids=lambda partition: partition.name)
def test_training_and_validation_partition_the_training_data(partition: Partition, by: str) -> None:
    seed = PARTITIONS.index(partition)
    config = _config(partition, seed=seed, share=0.2, by=by)
    data = federate(config)
    everything = np.concatenate(_parts(data))
    assert len(np.unique(everything)) == len(everything)
    if by == "clients":  # of what each client had without validation
        assert data.client_val is not None
        assert len(data.server_val) == 0
        for client, had in enumerate(federate(_config(partition, seed=seed)).partition.pooled()):
            both = [*data.partition.client(client), *data.client_val.client(client)]
            assert sorted(both) == sorted(had)
            assert len(data.client_val.client(client)) == num_held_out(0.2, len(had))
    else:
        assert len(data.server_val) == 800
        assert np.bincount(data.train.targets[data.server_val]).tolist() == [80] * 10
    nobodys = np.setdiff1d(np.arange(len(data.train)), everything)
    described = describe_partition(config, data)
    assert described["num_unassigned"] == len(nobodys)
    assert described["num_server_validation_examples"] == len(data.server_val)
    if not isinstance(partition, (Exclude, Shards, Classes)):
        assert not len(nobodys)


def test_without_validation_nothing_is_held_out_nor_told() -> None:
    config = _config(Iid())
    data = federate(config)
    assert not [name for name in describe_partition(config, data) if "validation" in name]
    assert data.client_val is None
    assert data.server_val.tolist() == []


def test_validation_is_keyed_on_the_seed_or_the_partition_s() -> None:
    def held_out(seed: int, own: int | None = None) -> str:
        return validation_sha256(federate(_config(Iid(seed=own), seed=seed, share=0.1, by="both")))

    assert held_out(0) == held_out(0) != held_out(1)
    assert held_out(0, own=3) == held_out(1, own=3)


def test_noise_is_seen_in_what_clients_hold_out_and_not_in_the_server_s() -> None:
    data = federate(_config(FeatureNoise(), share=0.1, by="both"))
    clean = federate(_config(Iid()))
    assert data.client_val is not None
    changed = (data.train.inputs != clean.train.inputs).any(axis=(1, 2, 3))
    assert changed[data.client_val.indices].all()
    assert not changed[data.server_val].any()


def test_clients_that_are_all_too_small_are_refused() -> None:
    with pytest.raises(FedexpError, match=r"dataset.validation=0.1 .*the largest has 4"):
        federate(_config(Iid(), num=1000, share=0.1, by="clients"))


def test_many_clients_keep_one_example_at_least() -> None:
    config = _config(Dirichlet(alpha=1, min_size=1), num=300, share=0.9, by="clients")
    data = federate(config)
    assert data.client_val is not None
    assert data.partition.sizes.min() == 1
    assert data.client_val.sizes.max() > 1


@pytest.mark.slow
def test_partitioners_of_flwr_datasets_deal_what_the_server_leaves() -> None:
    pytest.importorskip("flwr_datasets")
    everything = np.concatenate(_parts(federate(_config(FlwrDatasets(), share=0.1, by="both"))))
    assert sorted(everything.tolist()) == list(range(4000))
