"""A strategy that is kept away from a model's buffers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from support.helpers import same_weights, setup, weights_of

from fedexp.core.buffers import BuffersApart
from fedexp.core.roles import Order, Server, Update, Updates
from fedexp.core.weights import Weights
from fedexp.strategies.local_only import LocalOnlyServer
from fedexp.strategies.scaffold import Scaffold

BUFFERS = ("running_var", "steps")


def _weights(weight: float, variance: float, steps: int) -> Weights:
    """Return a model whose one parameter stands between its two buffers."""
    return {
        "running_var": np.array([variance], np.float32),
        "w": np.array([weight], np.float32),
        "steps": np.array(steps),
    }


MODEL = _weights(1.0, 2.0, 10)
# Weights 1 : 3, so the mean of the buffers is 3 and 13.
TWO = Updates(
    [
        Update(0, 1, _weights(5.0, 6.0, 10), 1, 2.0, numbers={"mass": 4.0}),
        Update(2, 1, _weights(9.0, 2.0, 14), 3, 1.0, numbers={"mass": 8.0}),
    ]
)


class Inner(Server):
    """Adds 100 to the mean; notes all that it is shown."""

    def __init__(self) -> None:
        self.models_seen: list[Weights] = []
        self.updates_seen: list[Updates] = []
        self.told: list[tuple[int, list[int]]] = []

    def instruct(self, t: int, model: Weights, cohort: Sequence[int]) -> dict[int, Order]:
        self.told.append((t, list(cohort)))
        self.models_seen.append(model)
        return super().instruct(t, model, cohort)

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        self.models_seen.append(model)
        self.updates_seen.append(updates)
        return {name: array + 100 for name, array in updates.mean().items()}

    def problem(self, update: Update) -> str | None:
        return f"{sorted(update.weights)} of {update.client}"


def test_the_inner_strategy_sees_parameters_only() -> None:
    inner = Inner()
    server = BuffersApart(inner, BUFFERS)
    server.instruct(4, MODEL, [0, 2])
    server.combine(4, MODEL, TWO)
    assert inner.told == [(4, [0, 2])]
    assert [list(model) for model in inner.models_seen] == [["w"], ["w"]]
    assert all(model["w"] is MODEL["w"] for model in inner.models_seen)
    (seen,) = inner.updates_seen
    assert [(u.client, u.round, u.num_examples, u.loss, dict(u.numbers)) for u in seen] == [
        (0, 1, 1, 2.0, {"mass": 4.0}),
        (2, 1, 3, 1.0, {"mass": 8.0}),
    ]
    assert [list(update.weights) for update in seen] == [["w"], ["w"]]


def test_the_inner_strategy_says_what_is_wrong_with_an_update() -> None:
    assert BuffersApart(Inner(), BUFFERS).problem(TWO[1]) == "['w'] of 2"


def test_parameters_by_the_inner_strategy_and_buffers_by_their_mean() -> None:
    found = BuffersApart(Inner(), BUFFERS).combine(1, MODEL, TWO)
    assert list(found) == list(MODEL)
    assert found["w"].tolist() == [108.0]  # (5 + 3*9) / 4 + 100
    assert found["running_var"].tolist() == [3.0]  # (6 + 3*2) / 4
    assert found["steps"] == 13  # (10 + 3*14) / 4
    assert found["steps"].shape == ()


def test_clients_get_the_whole_model_in_one_order() -> None:
    orders = BuffersApart(Inner(), BUFFERS).instruct(1, MODEL, [0, 2, 5])
    assert list(orders) == [0, 2, 5]
    assert len({id(order) for order in orders.values()}) == 1
    assert orders[0].weights is MODEL


class Sorted(Server):
    """Sends two kinds of orders: to even clients the model, to odd ones twice that and a word."""

    def instruct(self, t: int, model: Weights, cohort: Sequence[int]) -> dict[int, Order]:
        double = {name: 2 * array for name, array in model.items()}
        even = Order(model)
        odd = Order(double, {"extra": weights_of(7.0)}, {"word": "odd"}, (1, 3))
        return {client: odd if client % 2 else even for client in cohort if client}

    def models(self, model: Weights) -> dict[int | None, Weights]:
        own = {name: array + 1 for name, array in model.items()}
        return {None: model, 3: own}


def test_orders_that_differ_are_completed_one_by_one() -> None:
    orders = BuffersApart(Sorted(), BUFFERS).instruct(1, MODEL, [0, 1, 2, 3, 4])
    assert list(orders) == [1, 2, 3, 4]  # whom the inner strategy leaves out is not asked
    assert orders[1] is orders[3]
    assert orders[2] is orders[4]
    assert orders[2].weights is MODEL
    odd = orders[1]
    assert same_weights(odd.weights, _weights(2.0, 2.0, 10))
    assert odd.arrays["extra"]["w"].tolist() == [7.0]
    assert odd.numbers == {"word": "odd"}
    assert odd.examples_of == (1, 3)


def test_models_of_clients_have_the_global_buffers() -> None:
    models = BuffersApart(Sorted(), BUFFERS).models(MODEL)
    assert list(models) == [None, 3]
    assert models[None] is MODEL  # so that the loop knows it again
    assert same_weights(models[3], _weights(2.0, 2.0, 10))


def test_clients_whose_model_is_the_global_one_share_it() -> None:
    models = BuffersApart(LocalOnlyServer(2), BUFFERS).models(MODEL)
    assert models == {0: MODEL, 1: MODEL}
    assert models[0] is models[1] is MODEL


def test_the_loss_is_the_inner_strategys() -> None:
    class Selective(Inner):
        def loss(self, updates: Updates) -> float | None:
            return updates.only([1]).mean_loss()

    assert BuffersApart(Selective(), BUFFERS).loss(TWO) == 1.0
    assert BuffersApart(Inner(), BUFFERS).loss(TWO) == 1.25  # (2 + 3*1) / 4


def test_buffers_are_averaged_also_where_parameters_stay_as_they_are() -> None:
    class Patient(Server):
        def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
            return model

    found = BuffersApart(Patient(), BUFFERS).combine(1, MODEL, TWO)
    assert found["w"] is MODEL["w"]
    assert found["running_var"].tolist() == [3.0]
    assert found["steps"] == 13


def test_control_variates_are_of_parameters() -> None:
    server = BuffersApart(Scaffold().server(setup(2, buffers=BUFFERS)), BUFFERS)
    order = server.instruct(1, MODEL, [0, 1])[0]
    assert order.weights is MODEL
    assert list(order.arrays["control"]) == ["w"]
    control = {"control": {"w": np.array([3.0], np.float32)}}
    updates = [Update(k, 1, _weights(5.0, 6.0, 10), 1, None, control) for k in (0, 1)]
    assert same_weights(
        {
            n: a.astype(MODEL[n].dtype)
            for n, a in server.combine(1, MODEL, Updates(updates)).items()
        },
        _weights(5.0, 6.0, 10),
    )
    assert server.instruct(2, MODEL, [0])[0].arrays["control"]["w"].tolist() == [3.0]


@pytest.mark.parametrize("buffers", [[], ["w"], [*BUFFERS, "w"]])
def test_any_part_of_a_model_may_be_buffers(buffers: list[str]) -> None:
    found = BuffersApart(Inner(), buffers).combine(1, MODEL, TWO)
    assert list(found) == list(MODEL)
    assert found["w"].tolist() == [8.0 if "w" in buffers else 108.0]
    assert found["running_var"].tolist() == [3.0 if "running_var" in buffers else 103.0]
