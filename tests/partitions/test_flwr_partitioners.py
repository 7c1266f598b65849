"""The optional extra flwr-datasets."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from support.helpers import config as experiment

from fedexp.config.composition import compose_config
from fedexp.core.options import ConfigError, FedexpError
from fedexp.data.assignment import Assignment
from fedexp.partitions.base import make_partition
from fedexp.partitions.flwr_datasets import FlwrDatasets

LABELS = np.repeat(np.arange(10), 40)
BY_LABEL: dict[str, Any] = {"partition_by": "label"}


def _config(name: str, **options: Any) -> FlwrDatasets:
    return FlwrDatasets(partitioner=name, options=options)


def _deal(name: str, clients: int = 4, seed: int = 0, **options: Any) -> Assignment:
    return make_partition(_config(name, **options), LABELS, clients, seed)


def test_without_the_package_one_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "flwr_datasets", None)
    # Whatever options are given: which there are is known to the package alone.
    with pytest.raises(ConfigError) as caught:
        compose_config(["partition=flwr_datasets", "partition.options.alpha=1"])
    (line,) = caught.value.errors
    assert line.endswith("needs the package flwr-datasets: pip install 'flwr-datasets==0.6.*'")


def test_another_partition_does_not_import_it() -> None:
    code = """
import sys, fedexp.config.validation, fedexp.federation.dealing, fedexp.partitions.flwr_datasets
print("datasets" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("IidPartitioner", {}),
        ("LinearPartitioner", {}),
        ("DirichletPartitioner", {**BY_LABEL, "alpha": 1.0}),
        ("ShardPartitioner", {**BY_LABEL, "num_shards_per_partition": 2}),
        ("InnerDirichletPartitioner", {**BY_LABEL, "alpha": 1.0, "partition_sizes": [100] * 4}),
        ("ContinuousPartitioner", {"partition_by": "index", "strictness": 0.5}),
    ],
)
def test_partitions_are_disjoint_complete_and_reproducible(name: str, options: Any) -> None:
    partition = _deal(name, **options)
    assert partition.num_clients == 4
    assert sorted(partition.indices.tolist()) == list(range(400))
    assert partition.sha256 == _deal(name, **options).sha256
    assert partition.sha256 != _deal(name, seed=1, **options).sha256


def test_iid_is_shuffled_first() -> None:
    # The package's own partitioner cuts the dataset in its order, in which labels may be sorted.
    assert (_deal("IidPartitioner").class_counts(LABELS, 10) > 0).all()


def test_its_pathological_partitioner_gives_k_labels() -> None:
    partition = _deal("PathologicalPartitioner", **BY_LABEL, num_classes_per_partition=3)
    assert ((partition.class_counts(LABELS, 10) > 0).sum(axis=1) == 3).all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (_config("os.system"), "partition.partitioner must be one of ContinuousPartitioner, Dir"),
        (_config("Partitioner"), "got 'Partitioner'"),  # the abstract base
        (_config("VerticalEvenPartitioner"), "partition.partitioner must be one of"),
        (
            _config("IidPartitioner", alpha=1),
            "partition.options.alpha: IidPartitioner has no such option; it must be one of num_part",
        ),
        (
            _config("DirichletPartitioner", alpha=1),
            "partition.options must hold partition_by, which DirichletPartitioner needs",
        ),
    ],
)
def test_names_and_options_are_checked(config: FlwrDatasets, message: str) -> None:
    (line,) = config.errors(experiment())
    assert message in line


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("DirichletPartitioner", {**BY_LABEL, "alpha": -1}, "should be strictly greater than zero"),
        ("SizePartitioner", {"partition_sizes": [7, 8]}, "makes 2 partitions, clients.num is 4"),
        ("NaturalIdPartitioner", BY_LABEL, "makes 10 partitions, clients.num is 4"),
        ("IidPartitioner", {"num_partitions": 5}, "makes 5 partitions, clients.num is 4"),
        ("DirichletPartitioner", {"partition_by": "image", "alpha": 1}, "DirichletPartitioner: "),
    ],
)
def test_what_a_partitioner_refuses_is_one_line(name: str, options: Any, message: str) -> None:
    with pytest.raises(FedexpError, match=message) as caught:
        _deal(name, **options)
    assert "\n" not in str(caught.value)


def test_options_come_from_the_command_line() -> None:
    words = ["partition=flwr_datasets", "partition.partitioner=DirichletPartitioner"]
    at_once = compose_config([*words, "partition.options={alpha:0.3,partition_by:label}"])
    one_by_one = compose_config(
        [*words, "partition.options.alpha=0.3", "partition.options.partition_by=label"]
    )
    expected = _config("DirichletPartitioner", alpha=0.3, partition_by="label")
    assert at_once.partition == one_by_one.partition == expected
