"""The figures of a round under the names that dashboards plot.

``global/accuracy``, ``global/loss`` (``/<subset>`` follows for a part of the test set)
    the global model on the server's test images
``local/accuracy``, ``local/loss``
    with ``local_only``: mean over the models of all clients, a client that did not train in this round
    counting with the model it has
``clients/accuracy/mean``, ``std``, ``min``, ``worst10``
    over the clients that evaluated, each on its own test images
``clients/train_loss``, ``clients/failures``, ``clients/bytes_down``, ``clients/bytes_up``
    of the round's clients
``time/startup``, ``train``, ``aggregate``, ``client_evaluate``, ``evaluate``
    seconds
"""

from __future__ import annotations

from fedexp.core.statistics import fairness
from fedexp.tracking.run_folder import Metric, RoundReport


class Curves:
    """Turns a run's rounds into named figures, every one at most once a round.

    Attributes:
        clients: Partition id -> metric -> the client's last value on its own test images.
    """

    def __init__(self) -> None:
        self.clients: dict[int, dict[str, float]] = {}
        self._local: dict[tuple[str, str], dict[int, float]] = {}
        self._round, self._given = -1, set[str]()

    def of(self, report: RoundReport) -> dict[str, float]:
        """Return the round's figures; of a round's second report, those that are new."""
        if report.server_round != self._round:
            self._round, self._given = report.server_round, set()
        found = {f"time/{phase}": seconds for phase, seconds in report.seconds.items()}
        if report.server_round:
            found["clients/failures"] = report.failures
        for row in report.metrics:
            found |= self._of_row(row)
        evaluated = [
            row.value
            for row in report.metrics
            if row.split == "client_test" and row.client is not None and row.metric == "accuracy"
        ]
        if evaluated:
            found |= {f"clients/accuracy/{name}": v for name, v in fairness(evaluated).items()}
        new = {name: value for name, value in found.items() if name not in self._given}
        self._given |= set(new)
        return new

    def _of_row(self, row: Metric) -> dict[str, float]:
        if row.split == "train":
            return {f"clients/{'train_loss' if row.metric == 'loss' else row.metric}": row.value}
        if row.split == "client_test":
            if row.client is not None:
                self.clients.setdefault(row.client, {})[row.metric] = row.value
            return {}
        name = row.metric if row.subset == "all" else f"{row.metric}/{row.subset}"
        if row.client is None:
            return {f"global/{name}": row.value}
        known = self._local.setdefault((row.metric, row.subset), {})
        known[row.client] = row.value
        return {f"local/{name}": sum(known.values()) / len(known)}
