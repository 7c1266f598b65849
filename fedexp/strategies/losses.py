"""What strategies with a loss of their own have in common."""

from __future__ import annotations

from collections.abc import Iterable

from fedexp.core.options import Plan


def labels_only(name: str, plan: Plan) -> Iterable[str]:
    """Yield a line where a strategy whose loss is about labels meets a task without them."""
    if plan.dataset.task != "classification":
        yield (
            f"strategy={name} has a loss about labels: it needs a dataset of the task classification, "
            f"dataset={plan.dataset.name} is of {plan.dataset.task}"
        )
