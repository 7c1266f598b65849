"""FedLC: logits are calibrated by how often a client has each label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedexp.core.hooks import Loss, Seen
from fedexp.core.options import Plan, Span, ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job
from fedexp.strategies.base import Strategy, register
from fedexp.strategies.losses import labels_only

if TYPE_CHECKING:
    from torch import Tensor


@register
@dataclass(frozen=True)
class FedLc(Strategy):
    """Zhang et al., ICML 2022, arXiv 2209.00189.

    FedAvg whose clients take the cross-entropy of ``logit_y - tau * n_y ** (-1/4)``, ``n_y`` the client's
    examples of label ``y``. Labels that it has none of take no part. Departure: the true label stands in
    the denominator, too, as in plain cross-entropy, which ``tau`` 0 gives for a client that has all
    labels; the paper leaves it out, and a client of one label would have no loss.
    """

    asks = ("loss",)
    carries = Carries()

    name: str = "fedlc"
    tau: float = ranged(1.0, ge=0, tuned=Span(0.01, 2.0, log=True))
    """Strength of the calibration."""

    def errors(self, plan: Plan) -> Iterable[str]:
        """Labels are counted."""
        return labels_only(self.name, plan)

    def client(self) -> Client:
        """Return the client's side."""
        return FedLcClient(self.tau)


class FedLcClient(Client):
    """Train on calibrated logits."""

    def __init__(self, tau: float) -> None:
        self._tau = tau

    def run(self, job: Job) -> None:
        """Calibrate by the client's own labels."""
        job.send(job.train(loss=calibrated(job.label_counts().tolist(), self._tau)))


def calibrated(counts: Sequence[int], tau: float) -> Loss:
    """Return the loss of a client with so many examples of each label."""
    held = np.asarray(counts, dtype=np.float64)
    margins = np.where(held > 0, tau * np.maximum(held, 1) ** -0.25, np.inf).astype(np.float32)

    def of(seen: Seen, targets: Tensor, _: Sequence[Seen]) -> Tensor:
        import torch
        from torch.nn import functional as F

        margin = torch.from_numpy(margins).to(targets.device)
        return F.cross_entropy(seen.outputs - margin, targets)

    return Loss(of)
