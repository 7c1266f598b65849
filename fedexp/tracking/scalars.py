"""The numbers of a round under the names that dashboards plot.

``global/accuracy``, ``global/loss`` (``/<subset>`` follows for a part of the test set)
    the global model on the server's test images; so with every other metric of the run
``local/accuracy``, ``local/loss``
    where every client has a model of its own: mean over the models of all clients, a client that did not
    train in this round counting with the model it has
``val/accuracy``, ``client_val/accuracy``, ...
    the same on the examples that the server, and that the clients hold out (``dataset.validation``)
``clients/accuracy/mean``, ``std``, ``min``, ``worst10``
    over the clients that evaluated, each on its own test images; ``clients/<metric>/mean`` of the others
    (a metric by which another task is judged has accuracy's place; where a smaller number of it is the
    better one, ``max`` stands in place of ``min``)
``clients/train_loss``, ``clients/failures``, ``clients/bytes_down``, ``clients/bytes_up``
    of the round's clients
``time/startup``, ``train``, ``aggregate``, ``client_evaluate``, ``personalise``, ``evaluate``
    seconds
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from fedexp.core.statistics import fairness
from fedexp.federation.events import Measurement, RoundReport
from fedexp.metrics import sign_of
from fedexp.tasks.classification import Classification


class Scalars:
    """Turns a run's rounds into named numbers.

    Args:
        judged_by: The metric by which the task is judged.
    """

    def __init__(self, judged_by: str = Classification.headline) -> None:
        self._judged_by = judged_by
        self._local: dict[tuple[str, str], dict[int, float]] = {}

    def of(self, report: RoundReport) -> dict[str, float]:
        """Return the round's numbers."""
        found = {f"time/{phase}": seconds for phase, seconds in report.seconds.items()}
        if report.round:
            found["clients/failures"] = report.num_failures
        for row in report.measurements:
            found |= self._of_row(row)
        return found | self.of_clients(report.measurements)

    def _of_row(self, row: Measurement) -> dict[str, float]:
        if row.split == "train":
            return {f"clients/{'train_loss' if row.metric == 'loss' else row.metric}": row.value}
        if row.split == "client_test":
            return {}
        name = row.metric if row.subset == "all" else f"{row.metric}/{row.subset}"
        group = row.model if row.split == "test" else row.split
        if row.client is None:
            return {f"{group}/{name}": row.value}
        known = self._local.setdefault((group, name), {})
        known[row.client] = row.value
        return {f"{group}/{name}": sum(known.values()) / len(known)}

    def of_clients(self, rows: Iterable[Measurement]) -> dict[str, float]:
        """Return what is said of the clients' numbers on their own test images."""
        values: dict[str, list[float]] = {}
        for row in rows:
            if row.split == "client_test" and row.client is not None:
                values.setdefault(row.metric, []).append(row.value)
        judged_by, found = self._judged_by, dict[str, float]()
        if judged_by in values:
            served = fairness(values[judged_by], higher_is_better=sign_of(judged_by) > 0)
            found = {f"clients/{judged_by}/{name}": value for name, value in served.items()}
        others = (name for name in values if name not in (judged_by, "loss"))
        return found | {f"clients/{name}/mean": statistics.fmean(values[name]) for name in others}
