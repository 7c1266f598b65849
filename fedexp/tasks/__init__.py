"""What models are for: a dataset's page names its task, and a page here says what that means."""

from fedexp.core.registry import import_pages
from fedexp.tasks.base import (
    GROUPS,
    IGNORED,
    LABELS,
    NOTHING,
    REGISTRY,
    TOKENS,
    Grouping,
    Task,
    fits,
)

choices, get = REGISTRY.choices, REGISTRY.get

__all__ = [
    "GROUPS",
    "IGNORED",
    "LABELS",
    "NOTHING",
    "REGISTRY",
    "TOKENS",
    "Grouping",
    "Task",
    "choices",
    "fits",
    "get",
    "of",
]


def of(dataset: object) -> Task:
    """Return the task that a dataset's page names.

    Raises:
        FedexpError: If there is none of that name.
    """
    return get(dataset.task)()  # type: ignore[attr-defined]


import_pages(__name__)
