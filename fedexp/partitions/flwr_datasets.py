"""The partitioners of the package flwr-datasets, an optional extra, by their names.

A name is looked up among what ``flwr_datasets.partitioner`` exports and nowhere else. The package sees
labels and positions, never images.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedexp.core.options import FedexpError, Plan
from fedexp.data.assignment import Indices
from fedexp.partitions.base import Labels, Partition, register

LABEL, INDEX = "label", "index"
# Two split columns instead of images, and one takes a Python function.
_UNSUITED = ("VerticalEvenPartitioner", "VerticalSizePartitioner", "IdToSizeFncPartitioner")


@register
@dataclass(frozen=True)
class FlwrDatasets(Partition):
    """A partitioner of the package flwr-datasets, by its name and the options of its constructor.

    It gets a dataset of two columns, ``label`` and ``index``, in random order (as flwr-datasets' own
    ``FederatedDataset`` shuffles before it partitions). Where its constructor takes ``num_partitions``
    and ``seed`` and the options do not give them, they are the number of clients and the seed.
    """

    name: str = "flwr_datasets"
    partitioner: str = "IidPartitioner"
    """Name of the partitioner's class, such as DirichletPartitioner."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of its constructor, as partition.options.NAME=VALUE."""

    @property
    def label(self) -> str:
        """The partitioner's name."""
        return self.partitioner

    def errors(self, plan: Plan) -> Iterable[str]:
        """Name and options must be ones that flwr-datasets knows, and none may be lacking."""
        try:
            choices = flwr_partitioners()
        except FedexpError as error:
            yield str(error)
            return
        if self.partitioner not in choices:
            yield (
                f"partition.partitioner must be one of {', '.join(choices)}, got "
                f"{self.partitioner!r}"
            )
            return
        known = inspect.signature(choices[self.partitioner]).parameters
        for name in self.options:
            if name not in known:
                yield (
                    f"partition.options.{name}: {self.partitioner} has no such option; it must be "
                    f"one of {', '.join(known)}"
                )
        for name, parameter in known.items():
            filled = name in self.options or name == "num_partitions"
            if parameter.default is parameter.empty and not filled:
                yield f"partition.options must hold {name}, which {self.partitioner} needs"

    def deal(self, labels: Labels, num_clients: int, seed: int) -> Sequence[Indices]:
        """Let the partitioner deal.

        Raises:
            FedexpError: If it refuses its options.
        """
        import datasets

        order = self.rng(seed).permutation(len(labels))
        table = datasets.Dataset.from_dict({LABEL: labels[order], INDEX: order})
        entry = flwr_partitioners()[self.partitioner]
        given: dict[str, Any] = {
            **{"num_partitions": num_clients, "seed": self.own_seed(seed)},
            **self.options,
        }
        known = inspect.signature(entry).parameters
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # of lost images and new draws; the result tells both
                made = entry(**{name: value for name, value in given.items() if name in known})
                made.dataset = table
                return [
                    np.asarray(made.load_partition(k)[INDEX], dtype=np.int64)
                    for k in range(made.num_partitions)
                ]
        except Exception as error:  # whatever it raises is about the options it was given
            reason = " ".join(str(error).split()) or type(error).__name__
            raise FedexpError(f"partition.partitioner={self.partitioner}: {reason}") from error


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
