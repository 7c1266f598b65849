"""scikit-learn's linear models, trained by stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fedexp.core.options import Plan
from fedexp.data.examples import Spec
from fedexp.frameworks.base import Learner
from fedexp.models.base import NUMBERS, WHOLE, FrameworkModel, register


@register
@dataclass(frozen=True)
class SklearnSgd(FrameworkModel):
    """``SGDClassifier`` with the logistic loss, or ``SGDRegressor``, of scikit-learn.

    scikit-learn takes a step for every example, so that a "step" of ``training.local_steps`` is a walk
    through a batch, and a good learning rate is smaller than that of ``model=logistic``. Labels are told
    apart one against all others. A regression's steps follow half the squared error, as scikit-learn has
    it. ``training.weight_decay`` is ``alpha``, and does not act on the intercept. There is no momentum.
    """

    kinds = NUMBERS
    tasks = WHOLE
    framework = "scikit-learn"
    packages = ("scikit-learn",)
    allows: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **FrameworkModel.allows,
        "backend.device": ("auto", "cpu"),
        "training.optimizer": ("sgd",),
        "training.momentum": (0.0,),
        "training.max_grad_norm": (None,),
    }
    lacks = ("only", "pull", "correction")

    name: str = "sklearn_sgd"

    def errors(self, plan: Plan) -> Iterable[str]:
        """A strategy that counts steps would count batches."""
        if plan.strategy.needs_sgd:
            yield (
                f"strategy={plan.strategy.name} divides updates by the SGD steps behind them, and "
                f"model={self.name} takes one for every example, not for every batch: choose another "
                "model, such as logistic"
            )

    def learner(self, spec: Spec, task: str) -> Learner:
        """Return what trains it."""
        from fedexp.frameworks.on_sklearn import SgdClassifierLearner, SgdRegressorLearner

        return SgdClassifierLearner(spec) if spec.num_classes else SgdRegressorLearner(spec)
