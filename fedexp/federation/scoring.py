"""Score the models of a round: on the test set, and on what is held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fedexp.core.weights import Weights
from fedexp.federation.evaluation import CLIENT_VAL, VAL, Scores, ServerEvaluation
from fedexp.federation.outcome import Outcome


class Row(NamedTuple):
    """A row of metrics.csv but for its round; see :class:`fedexp.federation.events.Measurement`."""

    model: str
    split: str
    client: int | None
    metric: str
    value: float
    subset: str = "all"


def score(
    evaluation: ServerEvaluation, outcome: Outcome, models: Mapping[int | None, Weights]
) -> list[Row]:
    """Score the models that are new, note that in the outcome, and return it as rows.

    Args:
        evaluation: Scores models.
        outcome: What there was before.
        models: The models after the round, by owner.
    """
    before, fresh = outcome.models, dict[int | None, Scores]()
    scored: dict[int, Scores] = {}  # clients that share a model share its scores
    for owner, weights in models.items():
        if owner is None or weights is not before.get(owner):
            if id(weights) not in scored:
                scored[id(weights)] = evaluation.scores(weights)
            fresh[owner] = scored[id(weights)]
    validated = evaluation.validation({owner: models[owner] for owner in fresh})
    outcome.models = dict(models)
    outcome.scores.update(fresh)
    for owner, splits in validated.items():
        numbers = deciding(owner, splits)
        if numbers is not None:
            outcome.val[owner] = numbers
    return [*_rows("test", fresh), *_validation_rows(validated)]


def deciding(owner: int | None, splits: Scores) -> dict[str, float] | None:
    """Return what a model is selected by: its owner's own held-out examples, or else the other ones.

    The global model's owner is the server.
    """
    order = (VAL, CLIENT_VAL) if owner is None else (CLIENT_VAL, VAL)
    return next((splits[split] for split in order if split in splits), None)


def _validation_rows(validated: Mapping[int | None, Scores]) -> list[Row]:
    return [
        Row(_model(owner), split, owner, name, value)
        for owner, splits in validated.items()
        for split, numbers in splits.items()
        for name, value in numbers.items()
    ]


def _rows(split: str, fresh: Mapping[int | None, Scores]) -> list[Row]:
    return [
        Row(_model(owner), split, owner, name, value, subset)
        for owner, subsets in fresh.items()
        for subset, numbers in subsets.items()
        for name, value in numbers.items()
    ]


def _model(owner: int | None) -> str:
    return "global" if owner is None else "local"
