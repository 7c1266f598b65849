"""What passes between server and clients, and the means that every strategy is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords, aggregate_metricrecords
from hypothesis import given
from hypothesis import strategies as st
from support.helpers import same_weights, sent, setup, values, weights_of

from fedexp.core.roles import Server, Update, Updates, shares_of, weighted_mean
from fedexp.core.weights import Weights
from fedexp.flower.messages import to_record, to_weights

TWO = Updates([sent(4, 3.0, 2.0, num_examples=10), sent(7, -1.0, 6.0, num_examples=30)])


def _counted(*counts: int) -> Updates:
    return Updates([sent(client, 0.0, num_examples=n) for client, n in enumerate(counts)])


# --- a sequence of updates ------------------------------------------------------------------------


def test_updates_are_a_sequence() -> None:
    updates = _counted(1, 2, 3)
    assert [update.client for update in updates] == [0, 1, 2]
    assert len(updates) == 3
    assert updates[1].num_examples == 2
    assert updates[-1].client == 2
    assert isinstance(updates[1:], Updates)
    assert [update.client for update in updates[1:]] == [1, 2]
    assert [update.client for update in reversed(updates)] == [2, 1, 0]


def test_only_some_of_them_in_the_order_asked_for() -> None:
    updates = _counted(1, 2, 3)
    chosen = updates.only([2, 0])
    assert [update.client for update in chosen] == [2, 0]
    assert chosen[0] is updates[2]
    assert chosen.shares == [0.75, 0.25]  # 3 and 1 of 4
    assert list(updates.only([])) == []


def test_a_list_that_changes_afterwards_changes_nothing() -> None:
    given_list = [sent(0, 1.0)]
    updates = Updates(given_list)
    given_list.clear()
    assert len(updates) == 1


# --- shares ---------------------------------------------------------------------------------------


def test_shares_are_of_examples() -> None:
    assert TWO.shares == [0.25, 0.75]
    assert _counted(5).shares == [1.0]


@given(counts=st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_shares_sum_to_1(counts: list[int]) -> None:
    shares = _counted(*counts).shares
    assert shares == shares_of(counts)
    assert sum(shares) == pytest.approx(1.0)
    assert all(0 < share <= 1 for share in shares)


# --- means ----------------------------------------------------------------------------------------


def test_the_mean_by_hand() -> None:
    assert values(TWO.mean()) == [0.0, 5.0]  # (10*3 - 30*1) / 40, (10*2 + 30*6) / 40
    assert values(TWO.mean([0.5, 0.5])) == [1.0, 4.0]
    assert values(TWO.mean([1.0, -1.0])) == [4.0, -4.0]  # shares need not sum to 1
    assert values(TWO.mean([0.0, 0.0])) == [0.0, 0.0]


def test_there_is_a_share_for_every_update() -> None:
    for shares in ([1.0], [1.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match="zip"):
            TWO.mean(shares)


def test_the_mean_of_further_arrays() -> None:
    updates = Updates(
        [
            sent(0, 9.0, num_examples=10, arrays={"control": weights_of(4.0), "mask": {}}),
            sent(1, 9.0, num_examples=30, arrays={"control": weights_of(8.0), "mask": {}}),
        ]
    )
    assert values(updates.mean(of="control")) == [7.0]  # (10*4 + 30*8) / 40
    assert values(updates.mean([1.0, 0.0], of="control")) == [4.0]
    assert updates.mean(of="mask") == {}
    with pytest.raises(KeyError):
        updates.mean(of="absent")


def test_the_mean_may_be_written_to_and_leaves_updates_alone() -> None:
    for updates in (TWO, TWO[:1]):
        mean = updates.mean()
        mean["w"][:] = 77.0
    assert [values(update.weights) for update in TWO] == [[3.0, 2.0], [-1.0, 6.0]]
    scalar = Updates([Update(0, 1, {"n": np.array(3)}, 1)]).mean()["n"]
    scalar[...] = 5.0
    assert scalar == 5.0


def test_the_mean_keeps_names_order_and_dimensions() -> None:
    weights: Weights = {
        "b": np.ones((2, 3), np.float32),
        "a": np.array(7),
        "10": np.zeros((0, 4), np.float32),
        "9": np.ones(1),
    }
    mean = Updates([Update(k, 1, weights, 1) for k in range(2)]).mean()
    assert list(mean) == ["b", "a", "10", "9"]
    assert [array.shape for array in mean.values()] == [(2, 3), (), (0, 4), (1,)]
    # Of integers a mean is a fraction; whoever combines them restores the model's dtype.
    dtypes = [array.dtype for array in mean.values()]
    assert dtypes == [np.float32, np.float64, np.float32, np.float64]
    assert all(isinstance(array, np.ndarray) for array in mean.values())


@pytest.mark.parametrize(
    "shares",
    [np.array([0.25, 0.75]), list(np.array([0.25, 0.75]))],
    ids=["an array", "a list of NumPy's numbers"],
)
def test_shares_may_be_numpys(shares: Any) -> None:
    # As FedNova computes them; NumPy's float64 would make float64 of float32.
    assert values(TWO.mean(shares)) == [0.0, 5.0]


def test_the_mean_is_added_in_the_order_of_clients() -> None:
    # In float32, 1 is lost beside 2^25; it is not once the large ones have cancelled.
    first = Updates([sent(0, 2.0**25), sent(1, 1.0), sent(2, -(2.0**25))]).mean([1.0] * 3)
    second = Updates([sent(0, 2.0**25), sent(2, -(2.0**25)), sent(1, 1.0)]).mean([1.0] * 3)
    assert (values(first), values(second)) == ([0.0], [1.0])


def _as_flower_has_them(updates: Updates) -> list[RecordDict]:
    return [
        RecordDict(
            {
                "arrays": to_record(update.weights),
                "metrics": MetricRecord(
                    {"num-examples": update.num_examples, "train_loss": update.loss or 0.0}
                ),
            }
        )
        for update in updates
    ]


@st.composite
def _any_updates(draw: st.DrawFn) -> Updates:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([1e-30, 1e-3, 1.0, 1e4, 1e30]))

    def weights() -> Weights:
        return {
            "matrix": (scale * rng.normal(size=(3, 2))).astype(np.float32),
            "double": scale * rng.normal(size=3),
            "scale": np.array(rng.normal(), np.float32),
            "counts": rng.integers(-(2**40), 2**40, 3),
            "num_batches_tracked": np.array(rng.integers(0, 2**40)),
        }

    return Updates(
        [
            Update(client, 1, weights(), count, float(rng.normal()))
            for client, count in enumerate(draw(st.lists(st.integers(1, 10**6), min_size=1)))
        ]
    )


@given(updates=_any_updates())
def test_every_bit_of_the_mean_is_flowers(updates: Updates) -> None:
    flowers = to_weights(aggregate_arrayrecords(_as_flower_has_them(updates), "num-examples"))
    assert same_weights(updates.mean(), flowers)
    assert same_weights(Server().combine(1, flowers, updates), flowers)
    assert updates.mean()["num_batches_tracked"].shape == ()


@given(updates=_any_updates())
def test_every_bit_of_the_mean_loss_is_flowers(updates: Updates) -> None:
    flowers = aggregate_metricrecords(_as_flower_has_them(updates), "num-examples")
    assert updates.mean_loss() == flowers["train_loss"]


def test_means_weighted_by_counts() -> None:
    assert weighted_mean([4.0, 2.0], [1, 3]) == 2.5  # (4 + 3*2) / 4
    assert weighted_mean([1.0, 0.5], [1, 3]) == 0.625  # (1 + 3*0.5) / 4
    assert weighted_mean([3.0], [7]) == 3.0


def test_the_loss_of_a_round_is_weighted_by_examples() -> None:
    assert Updates([sent(0, 0.0, num_examples=10, loss=2.0), *TWO[1:]]).mean_loss() == 0.875
    assert Server().loss(Updates([sent(0, 0.0, loss=0.25)])) == 0.25


@pytest.mark.parametrize("losses", [[None, None], [0.5, None], [None, 0.5], []])
def test_a_round_in_which_somebody_reports_no_loss_has_none(losses: list[float | None]) -> None:
    updates = Updates([sent(client, 0.0, loss=loss) for client, loss in enumerate(losses)])
    assert updates.mean_loss() is None


# --- the defaults of a server ---------------------------------------------------------------------


def test_the_default_server_is_federated_averaging() -> None:
    server, model = Server(), weights_of(1.0, 2.0)
    orders = server.instruct(3, model, [1, 5])
    assert list(orders) == [1, 5]
    assert orders[1] is orders[5]
    assert orders[1].weights is model
    assert (orders[1].arrays, orders[1].numbers, orders[1].examples_of) == ({}, {}, ())
    assert values(server.combine(3, model, TWO)) == [0.0, 5.0]
    assert server.models(model) == {None: model}


def test_setup_knows_the_rate_of_every_round() -> None:
    known = setup(5)
    assert known.num_clients == 5
    assert known.learning_rate(1) == 0.01
