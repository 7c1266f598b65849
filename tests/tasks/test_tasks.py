"""What each task says of targets, losses and groups, by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from support.helpers import config

from fedexp import datasets, metrics, tasks
from fedexp.analysis.goals import ACCURACY, Goal, goal_of, told_by
from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.config.schema import StopConfig
from fedexp.config.validation import validate
from fedexp.core.options import FedexpError
from fedexp.core.statistics import fairness
from fedexp.data.examples import Examples, Spec
from fedexp.data.loading import check
from fedexp.models.cnn import Cnn
from fedexp.models.logistic import Logistic
from fedexp.partitions.dirichlet import Dirichlet
from fedexp.partitions.exclude import Exclude
from fedexp.tasks import IGNORED
from fedexp.tasks.base import Facts
from fedexp.testing.tiny import TINY, TinyNumbers, TinyPairs, TinyText
from fedexp.training.evaluator import Evaluator

REGRESSION, NEXT = tasks.get("regression")(), tasks.get("next_token")()
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", tasks.choices())
def test_a_tasks_metrics_fit_it_and_begin_with_the_headline(name: str) -> None:
    task = tasks.get(name)()
    assert task.metrics[0] == task.headline
    assert "loss" in task.metrics
    assert all(name in metrics.get(metric).tasks for metric in task.metrics)


def test_the_loss_of_a_regression_is_the_mean_squared_error() -> None:
    loss = REGRESSION.loss()
    one = loss(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 1.0]))
    assert one.item() == (1 + 4) / 2
    two = loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]]))
    assert two.item() == (1 + 4) / 2
    predicted, losses = REGRESSION.judge(
        torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]]), probabilities=False
    )
    assert (predicted.tolist(), losses.tolist()) == ([[1.0, 2.0]], [2.5])


def test_places_of_no_token_count_in_nothing() -> None:
    targets = torch.tensor([[1, IGNORED], [0, 1]])
    logits = torch.zeros(2, 2, 3)
    logits[0, 1] = torch.tensor([9.0, -9.0, 9.0])  # where nothing is to be predicted
    assert NEXT.loss()(logits, targets).item() == pytest.approx(math.log(3))
    assert NEXT.counted(targets) == 3
    labels, losses, odds = NEXT.judge(logits, targets, probabilities=True)
    assert labels.tolist() == [0, 0, 0]
    assert losses.tolist() == pytest.approx([math.log(3)] * 3)
    assert odds.shape == (3, 3)
    flat, offsets = NEXT.expected(targets.numpy())
    assert offsets is not None
    assert (flat.tolist(), offsets.tolist()) == ([1, 0, 1], [0, 1, 3])


def test_predictions_of_texts_are_told_text_by_text() -> None:
    inputs = np.array([[0, 1, 2], [2, 1, 0]])
    targets = np.array([[1, 2, IGNORED], [1, 0, 2]])

    class Same(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.nn.functional.one_hot(x, 3).float()

    evaluator = Evaluator(Examples(inputs, targets), NEXT, TinyText().prepare, CPU)
    found = evaluator.predict(Same())
    assert found.labels.tolist() == [0, 1, 2, 1, 0]
    assert found.select(np.array([1])).targets.tolist() == [1, 0, 2]


def test_groups_of_a_regression_are_tenths_of_the_training_targets() -> None:
    train = np.arange(100, dtype=np.float32)
    found = REGRESSION.grouping(train, np.array([-5, 9, 9.5, 10, 500], np.float32), ())
    assert np.bincount(found.train).tolist() == [10] * 10
    assert found.test.tolist() == [0, 0, 1, 1, 9]
    assert len(found.names) == 10
    few = REGRESSION.grouping(np.array([1, 1, 1, 1, 2], np.float32), train, ())
    assert (few.train.tolist(), len(few.names)) == ([0, 0, 0, 0, 1], 2)
    alike = REGRESSION.grouping(np.ones(4, np.float32), train, ())
    assert (alike.train.tolist(), alike.names) == ([0] * 4, ["all"])
    assert not NEXT.grouping(train, train, ()).train.any()


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (np.arange(3), "float32"),
        (np.arange(3.0), "float64"),
        (np.zeros((3, 1, 1), np.float32), "shape"),
        (np.array([0, np.nan, 1], np.float32), "row 1"),
    ],
)
def test_what_is_no_target_of_a_regression_is_refused(targets: Any, words: str) -> None:
    good = Examples(np.zeros((3, 2), np.float32), np.zeros(3, np.float32))
    check(TinyNumbers(), good, good)
    with pytest.raises(FedexpError, match=r"^dataset=tiny_numbers: the test examples") as caught:
        check(TinyNumbers(), good, Examples(good.inputs, targets))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "targets", "words"),
    [
        (np.zeros((2, 3), int), np.zeros((2, 2), int), "target for every token"),
        (np.zeros((2, 3), int), np.array([[0, 1, 2], [IGNORED] * 3]), "row 1"),
        (np.zeros((2, 3), int), np.full((2, 3), -2), "with -2"),
        (np.zeros((2, 3), np.float32), np.zeros((2, 3), int), "float32"),
        (np.full((2, 3), -1), np.zeros((2, 3), int), "with -1"),
    ],
)
def test_what_are_no_texts_is_refused(inputs: Any, targets: Any, words: str) -> None:
    with pytest.raises(FedexpError, match=r"^dataset=tiny_text: the training") as caught:
        check(TinyText(), Examples(inputs, targets), Examples(inputs, targets))
    assert words in str(caught.value)


def test_what_is_not_known_of_texts_and_numbers_is_measured() -> None:
    tokens = [np.array([[0, 4]]), np.array([[1, 2]])]
    assert NEXT.facts(tokens, [np.array([[4, 6]]), np.array([[1, 2]])]) == Facts(vocabulary=7)
    assert REGRESSION.facts(tokens, [np.zeros((1, 3))]) == Facts(values=3)
    assert Spec((2,), (), 1, 1, vocabulary=7).outputs == 7
    assert Spec((2,), ("a", "b"), 1, 1, vocabulary=7).outputs == 2
    assert Spec((2,), (), 1, 1, vocabulary=7, values=3).outputs == 3


def test_the_task_fills_in_what_is_left_to_it() -> None:
    found = config(dataset=TinyNumbers())
    assert found.metrics == found.measured == ["rmse", "loss", "mae", "r2"]
    assert (found.objective, found.stop.metric) == ("rmse", "rmse")
    stop = StopConfig(metric="loss")
    mine = config(dataset=TinyText(), metrics=["top5"], objective="loss", stop=stop)
    assert mine.measured == ["accuracy", "loss", "perplexity", "top5"]
    assert (mine.objective, mine.stop) == ("loss", stop)
    assert config().metrics == ["accuracy", "loss"]


@pytest.fixture
def tiny() -> Iterator[None]:
    """Tiny data sets can be chosen, as those of a script can."""
    for dataset in TINY:
        datasets.register(type(dataset))
    yield
    for dataset in TINY:
        datasets.REGISTRY.forget(dataset.name)


FLIPPING = ClientsConfig(3, byzantine=ByzantineConfig(0.4, "label_flip"))


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": TinyText()}, "model=mlp takes inputs of kind image or vector or series"),
        ({"dataset": TinyNumbers(), "model": Logistic()}, "model=logistic is for classification"),
        ({"dataset": TinyPairs(), "model": Cnn()}, "model=cnn takes inputs of kind image"),
        ({"dataset": TinyNumbers(), "metrics": ["macro_f1"]}, "these do: loss, mae, r2, rmse"),
        ({"metrics": ["rmse"]}, "rmse does not judge classification"),
        ({"dataset": TinyNumbers(), "objective": "best_accuracy"}, "best_rmse, worst10"),
        ({"dataset": TinyNumbers(), "clients": FLIPPING}, "these fit: gaussian"),
        (
            {"dataset": TinyNumbers(), "partition": Exclude(exclude=[[], [], []])},
            "partition=exclude deals examples by their labels",
        ),
    ],
)
def test_what_does_not_fit_a_task_is_refused_with_what_does(
    changes: dict[str, Any], words: str
) -> None:
    (line,) = validate(config(**changes))
    assert words in line


@pytest.mark.usefixtures("tiny")
def test_groups_are_enough_for_partitions_that_name_no_label() -> None:
    assert validate(config(dataset=TinyNumbers(), partition=Dirichlet())) == []
    found = validate(config(dataset=TinyText(), partition=Dirichlet()))
    assert "these fit: partition=feature_noise, given, iid, quantity" in found[0]


def test_the_worst_clients_have_the_largest_errors() -> None:
    found = fairness([1.0, 2.0, 4.0], higher_is_better=False)
    assert found["max"] == found["worst10"] == 4.0
    assert "min" not in found


def test_a_summary_that_says_nothing_is_of_a_classification() -> None:
    assert goal_of(told_by({"status": "completed"})) == ACCURACY
    assert tasks.get("classification")().described(["loss"]) == {}
    goal = goal_of(told_by(REGRESSION.described(["rmse", "loss", "mae"])))
    assert (goal.task, goal.metric, goal.sign, goal.has_labels) == ("regression", "rmse", -1, False)
    assert goal.limits("gain") == (-math.inf, math.inf)
    assert goal.limits("client_mean") == (0.0, math.inf)
    assert goal.larger_is_better("r2")
    assert not goal.larger_is_better("client_worst10")
    assert ACCURACY.limits("gain") == (-1.0, 1.0)
    assert goal.better(0.5, 0.75)


@pytest.mark.parametrize("name", metrics.choices())
def test_what_reads_runs_knows_the_metrics_as_their_pages_do(name: str) -> None:
    page = metrics.get(name)
    task = tasks.get(page.tasks[0])()
    told = task.described([name] if not page.higher_is_better else [])
    assert goal_of(told_by(told)).larger_is_better(name) == page.higher_is_better
    assert math.isfinite(Goal().limits(name)[0]) or math.isfinite(Goal().limits(name)[1])
