"""What a model's framework needs and cannot do, refused before anything starts."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

from fedexp.config.schema import GROUPS, Config


def framework_errors(config: Config) -> Iterator[str]:
    """Yield a line for everything that stands against the framework of the model."""
    model, strategy = config.model, config.strategy
    absent = [name for name in model.packages if not is_installed(name)]
    if absent:
        wanted = f"'fedexp[{model.extra}]'" if model.extra else " ".join(absent)
        yield f"model={model.name} needs {', '.join(absent)}: pip install {wanted}"
    for option, values in model.allows.items():
        value = operator.attrgetter(option)(config)
        if value not in values:
            yield (
                f"model={model.name} is written in {model.framework}: {option} must be "
                f"{' or '.join(_as_typed(v) for v in values)}, got {_as_typed(value)}"
            )
    lacking = [name for name in strategy.asks if name in model.cannot]
    if lacking:
        fit = [
            name
            for name, page in GROUPS["strategy"].pages().items()
            if not set(page.asks) & model.cannot
        ]
        yield (
            f"strategy={strategy.name} asks clients for {' and '.join(map(_told, lacking))}, which model="
            f"{model.name} ({model.framework}) cannot do; these fit: strategy={', '.join(fit)}"
        )


def _told(argument: str) -> str:
    return f"job.train({argument}=...)"


def _as_typed(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def is_installed(name: str) -> bool:
    """Say whether there is a distribution of that name, without importing anything."""
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
