"""The partitioners of the package flwr-datasets, an optional extra, by their names.

A name is looked up among what ``flwr_datasets.partitioner`` exports and nowhere else. The package sees
labels and positions, never images.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fedexp.core.options import FedexpError
from fedexp.core.seeding import derive_rng
from fedexp.data.partition import Partition
from fedexp.partitions.options import FlwrDatasetsPartition

LABEL, INDEX = "label", "index"
# Two split columns instead of images, and one takes a Python function.
_UNSUITED = ("VerticalEvenPartitioner", "VerticalSizePartitioner", "IdToSizeFncPartitioner")


def flwr_partitioners() -> dict[str, type]:
    """Return the partitioners that can be named.

    Raises:
        FedexpError: If flwr-datasets is not installed, with the command that installs it.
    """
    try:
        from flwr_datasets import partitioner as exported
    except ImportError as error:
        raise FedexpError(
            "partition=flwr_datasets needs the package flwr-datasets: "
            "pip install 'flwr-datasets==0.6.*'"
        ) from error
    found = {name: getattr(exported, name) for name in exported.__all__}
    return {
        name: entry
        for name, entry in sorted(found.items())
        if inspect.isclass(entry)
        and issubclass(entry, exported.Partitioner)
        and entry is not exported.Partitioner
        and name not in _UNSUITED
    }


def option_errors(config: FlwrDatasetsPartition) -> Iterator[str]:
    """Yield a line for a name or an option that flwr-datasets does not know, or lacks."""
    try:
        choices = flwr_partitioners()
    except FedexpError as error:
        yield str(error)
        return
    if config.partitioner not in choices:
        yield (
            f"partition.partitioner must be one of {', '.join(choices)}, got {config.partitioner!r}"
        )
        return
    known = inspect.signature(choices[config.partitioner]).parameters
    for name in config.options:
        if name not in known:
            yield (
                f"partition.options.{name}: {config.partitioner} has no such option; it must be one "
                f"of {', '.join(known)}"
            )
    for name, parameter in known.items():
        filled = name in config.options or name == "num_partitions"
        if parameter.default is parameter.empty and not filled:
            yield f"partition.options must hold {name}, which {config.partitioner} needs"


def deal_by_flwr_datasets(
    config: FlwrDatasetsPartition,
    labels: npt.NDArray[np.int64],
    num_clients: int,
    seed: int,
) -> Partition:
    """Let a partitioner of flwr-datasets deal the images.

    It gets a dataset of two columns, ``label`` and ``index``, in random order (as flwr-datasets' own
    ``FederatedDataset`` shuffles before it partitions). Where its constructor takes ``num_partitions``
    and ``seed`` and the options do not give them, they are the number of clients and the seed.

    Raises:
        FedexpError: If the partitioner refuses its options, makes another number of partitions, or
            gives an image to two clients.
    """
    import datasets

    own_seed = seed if config.seed is None else config.seed
    order = derive_rng(own_seed, "partition").permutation(len(labels))
    table = datasets.Dataset.from_dict({LABEL: labels[order], INDEX: order})
    entry = flwr_partitioners()[config.partitioner]
    given: dict[str, Any] = {"num_partitions": num_clients, "seed": own_seed, **config.options}
    known = inspect.signature(entry).parameters
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lost images and new draws; the result tells both
            partitioner = entry(**{name: value for name, value in given.items() if name in known})
            partitioner.dataset = table
            num_partitions = partitioner.num_partitions
            parts = [
                np.asarray(partitioner.load_partition(k)[INDEX], dtype=np.int64)
                for k in range(num_partitions)
            ]
    except Exception as error:  # whatever it raises is about the options it was given
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FedexpError(f"partition.partitioner={config.partitioner}: {reason}") from error
    if num_partitions != num_clients:
        raise FedexpError(
            f"partition.partitioner={config.partitioner} makes {num_partitions} partitions, "
            f"clients.num is {num_clients}"
        )
    partition = Partition.of(parts)
    if len(np.unique(partition.indices)) != len(partition.indices):
        raise FedexpError(
            f"partition.partitioner={config.partitioner} gives an image to more than one client"
        )
    return partition
