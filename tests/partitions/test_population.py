"""``partition=population``: the dataset draws what each client holds, however many clients there are."""

from __future__ import annotations

import pickle
import tracemalloc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support.helpers import config
from support.populations import MANY, REFUSED

from fedexp.config.clients import ClientsConfig
from fedexp.config.schema import Config
from fedexp.config.validation import validate
from fedexp.core.options import FedexpError
from fedexp.data.examples import Examples, Spec
from fedexp.datasets import PopulationDataset
from fedexp.datasets.synthetic import Synthetic
from fedexp.datasets.synthetic_devices import SyntheticDevices
from fedexp.federation.dealing import describe_partition, federate
from fedexp.models.logistic import Logistic
from fedexp.partitions.given import Given
from fedexp.partitions.iid import Iid
from fedexp.partitions.population import Population
from fedexp.partitions.resample import Resample
from fedexp.preview import partition_table
from fedexp.strategies.local_only import LocalOnly

DEVICES = SyntheticDevices(samples_per_client=9)


def _plan(num: int = MANY, **changes: Any) -> Config:
    given = {
        "dataset": DEVICES,
        "partition": Population(panel=5),
        "clients": ClientsConfig(num, fraction_train=min(1.0, 10 / num)),
        "model": Logistic(),
    }
    return config(**{**given, **changes})


def _bytes(examples: Examples) -> tuple[bytes, bytes]:
    return examples.inputs.tobytes(), examples.targets.tobytes()


def test_what_clients_hold_depends_on_nobody_else() -> None:
    few, many = federate(_plan(1_000)), federate(_plan())
    other_seed = federate(_plan(seed=1))
    for client in (0, 999):
        alone = DEVICES.draw(client)
        for data in (few, many, other_seed, pickle.loads(pickle.dumps(many))):
            assert _bytes(data.train_examples([client])) == _bytes(alone[0])
            assert _bytes(data.client_test_examples(client)) == _bytes(alone[1])
            assert (data.partition.size(client), data.client_test.size(client)) == (9, 1)
    two = many.train_examples([7, 3])
    assert _bytes(two) == _bytes(Examples.joined([DEVICES.draw(7)[0], DEVICES.draw(3)[0]]))


def test_listed_clients_are_in_the_arrays_and_their_test_examples_are_the_servers() -> None:
    data = federate(_plan(dataset=SyntheticDevices()))
    listed = list(data.partition.listed)
    assert len(listed) == 5
    assert listed == sorted({*listed}) == list(data.client_test.listed)
    for client in listed:
        own = data.partition.client(client)
        assert _bytes(data.train.subset(own)) == _bytes(data.train_examples([client]))
        own = data.client_test.client(client)
        assert _bytes(data.test.subset(own)) == _bytes(data.client_test_examples(client))
    assert len(data.test) == data.client_test.sizes.sum()
    assert len(data.train) == data.partition.sizes.sum()
    for stranger in (listed[0] + 1, MANY - 1):
        with pytest.raises(ValueError, match="not listed"):
            data.partition.client(stranger)


def test_nobody_trains_on_what_is_held_out_and_the_server_has_the_panels() -> None:
    page = SyntheticDevices(samples_per_client=9, validation=0.25)
    plan = _plan(dataset=page)
    assert validate(plan) == []
    data = federate(plan)
    held_out = data.train.subset(data.server_val)
    assert len(held_out) == 5 * 2
    rows = {row.tobytes() for row in held_out.inputs}
    for client in (*data.partition.listed, 0, MANY - 1):
        (drawn, tested), trained = page.draw(client), data.train_examples([client])
        assert len(trained) == data.partition.size(client) == 7
        own = {row.tobytes() for row in trained.inputs}
        assert own < {row.tobytes() for row in drawn.inputs}
        assert not own & rows
        assert _bytes(data.client_test_examples(client)) == _bytes(tested)
        if client in data.partition.listed:
            rows -= {row.tobytes() for row in drawn.inputs}
            at = data.partition.client(client)
            assert _bytes(data.train.subset(at)) == _bytes(trained)
    assert not rows, "they are the listed clients'"
    told = describe_partition(plan, data)
    assert told["num_server_validation_examples"] == 10
    assert told["num_validation_examples"] == [0] * 5
    other = federate(_plan(dataset=page, seed=1)).train_examples([0])
    assert _bytes(other) != _bytes(data.train_examples([0]))


def test_a_share_of_less_than_an_example_is_refused() -> None:
    with pytest.raises(FedexpError, match=r"dataset\.validation=0\.1 is less"):
        federate(_plan(dataset=SyntheticDevices(samples_per_client=9, validation=0.1)))


def test_the_hash_is_of_the_population_and_of_who_is_listed() -> None:
    def sha256(**changes: Any) -> str:
        return federate(_plan(**changes)).partition.sha256

    alike = [sha256(), sha256(), sha256(seed=1, partition=Population(panel=5, seed=0))]
    assert len({*alike}) == 1
    others = [
        sha256(seed=1),
        sha256(num=MANY + 1),
        sha256(partition=Population(panel=6)),
        sha256(dataset=SyntheticDevices(samples_per_client=10)),
        sha256(dataset=SyntheticDevices(samples_per_client=9, draw_seed=1)),
        sha256(dataset=SyntheticDevices(samples_per_client=9, validation=0.2)),
    ]
    assert len({*others, alike[0]}) == 7


def test_nothing_of_the_size_of_the_population_is_made() -> None:
    def described(clients: int) -> tuple[dict[str, Any], int]:
        tracemalloc.start()
        plan = _plan(clients)
        told = describe_partition(plan, federate(plan))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return told, peak

    described(1_000)  # what is imported and drawn for the hash is there
    (few, small), (many, large) = described(1_000), described(MANY)
    assert large < small + 100_000
    assert few.keys() == many.keys()
    assert many["num_clients"] == MANY
    assert len(many["clients"]) == len(many["class_counts"]) == 5
    assert many["num_examples"] == [9] * 5 == [sum(row) for row in many["class_counts"]]
    assert many["num_test_examples"] == [1] * 5
    assert many["num_unassigned"] is None
    assert "owners" not in many


def test_few_clients_are_all_listed_and_may_train_alone() -> None:
    plan = _plan(5, strategy=LocalOnly())
    assert [*validate(plan)] == []
    told = describe_partition(plan, federate(plan))
    assert "clients" not in told
    assert told["num_unassigned"] == 0
    assert "0 of 45 training examples" in partition_table(plan, federate(plan))


def test_the_preview_lists_the_panel() -> None:
    plan = _plan()
    text = partition_table(plan, federate(plan))
    for client in federate(plan).partition.listed:
        assert f"\n{client} " in text
    assert "99,999,995 more clients" in text


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"partition": Iid()}, "partition must be population"),
        ({"partition": Resample()}, "partition must be population"),
        ({"partition": Given()}, "partition must be population"),
        ({"dataset": Synthetic()}, "dataset=synthetic_devices"),
        (
            {"dataset": SyntheticDevices(validation=0.1, validation_by="clients")},
            "dataset.validation_by",
        ),
        *REFUSED,
    ],
)
def test_what_a_population_cannot_do_is_refused(changes: dict[str, Any], named: str) -> None:
    (line,) = validate(_plan(**changes))
    assert named in line


@dataclass(frozen=True)
class Odd(PopulationDataset):
    """Draws what its page does not say."""

    facts = Spec((2,), ("a", "b"), 0, 0)

    name: str = "odd"
    label: int = 1
    count: int = 3
    tested: int = 1

    def draw(self, client: int) -> tuple[Examples, Examples]:
        rng = np.random.default_rng(client)

        def some(count: int) -> Examples:
            return Examples(rng.random((count, 2)), np.full(count, self.label, np.int64))

        return some(self.count), some(self.tested)


@pytest.mark.parametrize(
    ("page", "named"),
    [
        (Odd(label=2), "the training targets"),
        (Odd(count=0), "draws no training example for client"),
        (Odd(tested=0), "the test examples"),
    ],
)
def test_a_population_that_is_not_as_its_page_says_is_refused(page: Odd, named: str) -> None:
    with pytest.raises(FedexpError) as caught:
        federate(_plan(dataset=page))
    assert "dataset=odd" in str(caught.value)
    assert named in str(caught.value)
