"""What trains scikit-learn's linear models by stochastic gradient descent, an example at a time."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np

from fedexp.core.weights import Weights
from fedexp.data.examples import Spec
from fedexp.frameworks.base import Array, Batch, Learner, Recipe

COEF, INTERCEPT = "coef", "intercept"


class SgdLearner(Learner):
    """Linear scores, which start at zero: ``coef``, shape (rows, numbers), ``intercept``, shape (rows,).

    Args:
        spec: What inputs and predictions are.
        rows: Scores of an input.
    """

    def __init__(self, spec: Spec, rows: int) -> None:
        self._rows, self._numbers, self._outputs = rows, math.prod(spec.shape), spec.outputs

    def initial(self, seed: int) -> Weights:
        """Return zeros: the problem is convex."""
        return {
            COEF: np.zeros((self._rows, self._numbers), np.float32),
            INTERCEPT: np.zeros(self._rows, np.float32),
        }

    def fit(
        self, start: Weights, batches: Iterable[Batch], recipe: Recipe
    ) -> tuple[Weights, list[float]]:
        """Give the estimators batch after batch."""
        estimators = self._estimators(
            {
                "penalty": "l2",
                "alpha": recipe.weight_decay,
                "learning_rate": "constant",
                "eta0": recipe.learning_rate,
                "shuffle": False,
            }
        )
        weights, losses = start, []
        for estimator, row in zip(estimators, self._parts(), strict=True):
            estimator.coef_[:] = start[COEF][row].reshape(estimator.coef_.shape)
            estimator.intercept_[:] = start[INTERCEPT][row]
        for inputs, targets in batches:
            losses.append(self._loss(self.outputs(weights, inputs), targets))
            self._step(estimators, inputs.reshape(len(inputs), -1), targets)
            weights = {
                COEF: np.concatenate([np.atleast_2d(e.coef_) for e in estimators]),
                INTERCEPT: np.concatenate([e.intercept_ for e in estimators]),
            }
            weights = {name: array.astype(np.float32) for name, array in weights.items()}
        return weights, losses

    def outputs(self, weights: Weights, inputs: Array) -> Array:
        """Turn scores into outputs."""
        return self._said(inputs.reshape(len(inputs), -1) @ weights[COEF].T + weights[INTERCEPT])

    @abstractmethod
    def _estimators(self, options: dict[str, Any]) -> list[Any]:
        """Return estimators that have seen one example, so that they have coefficients to write to."""

    @abstractmethod
    def _parts(self) -> list[slice]:
        """Return the rows of every estimator."""

    @abstractmethod
    def _step(self, estimators: list[Any], inputs: Array, targets: Array) -> None:
        """Walk through a batch."""

    @abstractmethod
    def _said(self, scores: Array) -> Array:
        """Turn scores, shape (n, rows), into outputs."""

    @abstractmethod
    def _loss(self, outputs: Array, targets: Array) -> float:
        """Return the mean loss of a batch."""


class SgdClassifierLearner(SgdLearner):
    """``SGDClassifier`` with the logistic loss: one label against all others, or one score for two."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec, 1 if spec.num_classes == 2 else spec.num_classes)

    def _estimators(self, options: dict[str, Any]) -> list[Any]:
        from sklearn.linear_model import SGDClassifier

        made = SGDClassifier(loss="log_loss", **options)
        first = np.zeros((1, self._numbers), np.float32)
        return [made.partial_fit(first, [0], classes=np.arange(self._outputs))]

    def _parts(self) -> list[slice]:
        return [slice(None)]

    def _step(self, estimators: list[Any], inputs: Array, targets: Array) -> None:
        estimators[0].partial_fit(inputs, targets)

    def _said(self, scores: Array) -> Array:
        """Return logits whose softmax is what ``predict_proba`` says: shares of the odds' sum."""
        both = np.concatenate([-scores, scores], axis=1) if self._rows == 1 else scores
        logits: Array = -np.logaddexp(0, -both)  # log of the logistic function
        return logits

    def _loss(self, outputs: Array, targets: Array) -> float:
        chosen = outputs[np.arange(len(targets)), targets]
        return float((np.logaddexp.reduce(outputs, axis=1) - chosen).mean())


class SgdRegressorLearner(SgdLearner):
    """An ``SGDRegressor`` with the squared error for every number of a target."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec, spec.outputs)

    def _estimators(self, options: dict[str, Any]) -> list[Any]:
        from sklearn.linear_model import SGDRegressor

        first = np.zeros((1, self._numbers), np.float32)
        return [SGDRegressor(**options).partial_fit(first, [0.0]) for _ in range(self._rows)]

    def _parts(self) -> list[slice]:
        return [slice(k, k + 1) for k in range(self._rows)]

    def _step(self, estimators: list[Any], inputs: Array, targets: Array) -> None:
        columns = targets.reshape(len(targets), -1).T
        for estimator, column in zip(estimators, columns, strict=True):
            estimator.partial_fit(inputs, column)

    def _said(self, scores: Array) -> Array:
        return scores

    def _loss(self, outputs: Array, targets: Array) -> float:
        return float(np.square(outputs - targets.reshape(outputs.shape)).mean())
