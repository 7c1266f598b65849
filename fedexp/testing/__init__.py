"""Does a page keep to its contract? For your own tests, and before a run that uses code from outside.

    from fedexp.testing import conforms

    def test_mine() -> None:
        conforms(Mine())

Built-in pages pass the same suite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fedexp import attacks, metrics
from fedexp.attacks import Attack
from fedexp.config.schema import Config
from fedexp.core.registry import located
from fedexp.datasets import Dataset
from fedexp.metrics import Metric
from fedexp.models import Model
from fedexp.partitions import Partition
from fedexp.strategies import Strategy
from fedexp.testing.models import check_model, model_conforms
from fedexp.testing.pages import (
    attack_conforms,
    check_attack,
    check_dataset,
    check_metric,
    check_partition,
    check_sides,
    dataset_conforms,
    metric_conforms,
    partition_conforms,
    strategy_conforms,
)
from fedexp.testing.runs import DoesNotConform

__all__ = ["DoesNotConform", "conforms", "try_out"]


def conforms(page: object, backends: Sequence[str] = ("inline", "ray")) -> None:
    """Try a page out, and raise an error unless it keeps to its contract.

    Args:
        page: An instance, such as ``Mine()``: of a strategy, dataset, model, partition, metric or attack.
        backends: Where runs of a strategy, a model or an attack must give the same bits: of ``inline``,
            ``ray`` and ``flower``.

    Raises:
        DoesNotConform: With a line that says what is wrong, and where.
        TypeError: If it is no page at all.
    """
    for kind, check in _CHECKS.items():
        if isinstance(page, kind):
            with _blaming(page):
                check(page, backends)
            return
    raise TypeError(f"{page!r} is neither {', '.join(kind.__name__ for kind in _CHECKS)}")


def try_out(config: Config) -> None:
    """Check quickly what a configuration uses of code from outside, before its run starts.

    Raises:
        DoesNotConform: With a line that says what is wrong, and where.
    """
    dataset, partition, model = config.dataset, config.partition, config.model
    if _is_outside(dataset):
        with _blaming(dataset):
            check_dataset(dataset)
    if _is_outside(partition):
        with _blaming(partition):
            check_partition(partition, config.clients.num, config.seed, dataset)
    if _is_outside(model):
        with _blaming(model):
            check_model(model, dataset, config)
    if _is_outside(config.strategy):
        with _blaming(config.strategy):
            check_sides(config.strategy, config)
    byzantine = config.clients.byzantine
    if byzantine.fraction and not attacks.REGISTRY.is_built_in(byzantine.kind):
        attack = byzantine.attack()
        with _blaming(attack):
            check_attack(attack)
    for name in config.measured:
        if not metrics.REGISTRY.is_built_in(name):
            metric = metrics.get(name)()
            with _blaming(metric):
                check_metric(metric)


@contextmanager
def _blaming(page: Any) -> Iterator[None]:
    """Turn whatever a page's code raises into one line that names the page."""
    what = f"{type(page).__name__} ({page.name})"
    try:
        yield
    except DoesNotConform as error:
        raise DoesNotConform(f"{what}: {error}") from error
    except Exception as error:
        raise DoesNotConform(f"{what}: {located(type(page), error)}") from error


def _is_outside(page: object) -> bool:
    return not type(page).__module__.startswith("fedexp.")


_CHECKS: dict[type, Callable[[Any, Sequence[str]], None]] = {
    Strategy: strategy_conforms,
    Dataset: dataset_conforms,
    Model: model_conforms,
    Partition: partition_conforms,
    Metric: metric_conforms,
    Attack: attack_conforms,
}
