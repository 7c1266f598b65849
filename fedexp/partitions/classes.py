"""Label skew: exactly k labels each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fedexp.core.options import FedexpError, Plan, ranged
from fedexp.data.assignment import Indices
from fedexp.partitions.base import Labels, Partition, register
from fedexp.tasks import LABELS


@register
@dataclass(frozen=True)
class Classes(Partition):
    """Every client holds examples of exactly ``classes_per_client`` labels, shared among its holders.

    NIID-Bench's "#C = k" (Li et al., arXiv 2102.02079). As in its code, labels are first dealt in turn,
    so that each has a holder if there are enough places, and the rest of the k is drawn at random.
    With fewer places than labels (num_clients * k), the examples of labels that nobody holds belong to
    no client.
    """

    deals_by = LABELS

    name: str = "classes"
    classes_per_client: int = ranged(2, ge=1)
    """Labels that a client holds examples of."""

    @property
    def label(self) -> str:
        """As in ``classes2``."""
        return f"classes{self.classes_per_client}"

    def errors(self, plan: Plan) -> Iterable[str]:
        """There must be as many labels."""
        if self.classes_per_client > plan.dataset.spec.num_classes:
            yield (
                f"partition.classes_per_client must be <= {plan.dataset.spec.num_classes}, the labels "
                f"of dataset={plan.dataset.name}, got {self.classes_per_client}"
            )

    def deal(self, labels: Labels, num_clients: int, seed: int) -> Sequence[Indices]:
        """Choose every client's labels, then share each label's examples among those who hold it.

        Raises:
            FedexpError: If fewer than k labels have examples, or a label has more holders than examples.
        """
        rng, k = self.rng(seed), self.classes_per_client
        present = np.unique(labels)
        if k > len(present):
            raise FedexpError(
                f"partition.classes_per_client must be <= {len(present)}, the labels that have "
                f"examples, got {k}"
            )
        in_turn = rng.permutation(present)
        held: list[list[int]] = []
        for client in range(num_clients):
            own = in_turn[client % len(present) :: num_clients][:k]
            others = rng.permutation(np.setdiff1d(present, own))
            held.append([*own.tolist(), *others[: k - len(own)].tolist()])
        parts: list[list[Indices]] = [[] for _ in range(num_clients)]
        for label in present.tolist():
            holders = [client for client in range(num_clients) if label in held[client]]
            pool = rng.permutation(np.flatnonzero(labels == label))
            if len(pool) < len(holders):
                raise FedexpError(
                    f"partition=classes: {len(holders)} clients hold label {label}, which has "
                    f"{len(pool)} examples: choose fewer clients (clients.num) or a smaller "
                    f"partition.classes_per_client (now {k})"
                )
            pieces = np.array_split(pool, max(1, len(holders)))
            for client, piece in zip(holders, pieces, strict=False):
                parts[client].append(piece)
        return [np.concatenate(part) for part in parts]
