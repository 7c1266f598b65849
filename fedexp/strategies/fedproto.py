"""FedProto: every client has a model of its own; they share the mean features of every label."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedexp.core.hooks import Loss, Seen
from fedexp.core.layers import Layers
from fedexp.core.options import Plan, Span, ranged
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job, Order, Server, Setup, Update, Updates
from fedexp.core.weights import Weights
from fedexp.strategies.base import Strategy, register
from fedexp.strategies.losses import labels_only

if TYPE_CHECKING:
    from torch import Tensor

PROTOTYPES, COUNTS = "prototypes", "counts"
"""Label, as a word -> the mean features of its examples; and how many examples these are."""


@register
@dataclass(frozen=True)
class FedProto(Strategy):
    """Tan et al., AAAI 2022, arXiv 2105.00243, algorithm 1: clients share prototypes and no weights.

    A client's prototype of a label is the mean of its features (what the last layer takes) over the
    client's examples of that label. Every client trains a model of its own on its loss plus ``lam`` times
    the mean square, over a batch's examples and features, of features minus the global prototype of the
    example's label (0 where there is none, as in the first round). Then it sends its prototypes and how
    many examples are behind each; a global prototype is the mean of them weighted by these counts, and
    stays where nobody of a round has the label. With ``lam`` 0 this is isolated training, to the bit. A
    newcomer, which has no model, trains the initial one for a round's steps on the same loss.

    A client is tested with its own model, last layer included. The paper's other rule, the label of the
    nearest prototype, is not tried. Departures: all models have one architecture and start from the same
    weights. The mean square is that of the authors' code; the paper's equation sums, over the labels in a
    batch, the distance of their mean features from the prototype, and with ``lam`` 1 models of clients
    with many labels collapsed under it here. A global prototype is a weighted mean, as in the paper's
    proofs; its equation divides that by the number of clients once more, and in the code clients count
    alike.
    """

    personalised = True
    reads_features = True
    asks = ("loss",)
    carries = Carries(free=(PROTOTYPES, COUNTS))

    name: str = "fedproto"
    lam: float = ranged(1.0, ge=0, tuned=Span(0.01, 4.0, log=True))
    """Weight of what lies between features and global prototypes (lambda), which the paper tunes up to 4;
    0 is isolated training."""

    def keeps(self, layers: Layers) -> Collection[str]:
        """Return the whole model."""
        return layers.names

    def errors(self, plan: Plan) -> Iterable[str]:
        """Prototypes are of labels, and no weights are sent that an attack could change."""
        yield from labels_only(self.name, plan)
        byzantine = plan.clients.byzantine
        if byzantine.fraction and byzantine.attack().acts_on_weights:
            yield (
                f"clients.byzantine.kind={byzantine.kind} changes weights, and with strategy={self.name} "
                "clients send none: choose an attack on examples, such as label_flip"
            )

    def server(self, setup: Setup) -> Server:
        """Return the server's side."""
        return FedProtoServer(setup)

    def client(self) -> Client:
        """Return the client's side."""
        return FedProtoClient(self.lam)


class FedProtoServer(Server):
    """Keep a prototype per label.

    Attributes:
        prototypes: Label -> mean features, float32, shape (width,); of labels that somebody sent.
    """

    def __init__(self, setup: Setup) -> None:
        self._num_classes, self._width = setup.num_classes, setup.width
        self.prototypes: Weights = {}

    def instruct(self, t: int, model: Weights, cohort: Sequence[int]) -> dict[int, Order]:
        """Send the prototypes; the model stays behind, as all its entries are the clients' own."""
        return self.before_tests(model, cohort)

    def before_tests(self, model: Weights, clients: Sequence[int]) -> dict[int, Order]:
        """Send newcomers what everybody is sent."""
        arrays = {PROTOTYPES: self.prototypes} if self.prototypes else {}
        return dict.fromkeys(clients, Order(model, arrays))

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        """Average prototypes label by label; there is no new global model."""
        sums: dict[str, npt.NDArray[np.float64]] = {}
        totals: dict[str, int] = {}
        for update in updates:
            arrays = update.arrays
            for label, mean in arrays[PROTOTYPES].items():
                count = int(arrays[COUNTS][label])
                sums[label] = sums.get(label, 0.0) + count * mean.astype(np.float64)
                totals[label] = totals.get(label, 0) + count
        fresh = {label: (sums[label] / totals[label]).astype(np.float32) for label in sums}
        known = {**self.prototypes, **fresh}
        self.prototypes = {label: known[label] for label in sorted(known, key=int)}
        return model

    def problem(self, update: Update) -> str | None:
        """Require a vector and a count for every label that is sent, and no other label."""
        means, counts = update.arrays[PROTOTYPES], update.arrays[COUNTS]
        labels = {str(label) for label in range(self._num_classes)}
        if means.keys() != counts.keys():
            return f"{PROTOTYPES} are of the labels {sorted(means)}, {COUNTS} of {sorted(counts)}"
        if means.keys() - labels:
            return f"{PROTOTYPES} are of labels that are not there: {sorted(means.keys() - labels)}"
        for label, mean in means.items():
            problem = _form_problem(PROTOTYPES, label, mean, (self._width,), np.float32)
            problem = problem or _form_problem(COUNTS, label, counts[label], (), np.int64)
            if problem:
                return problem
            if counts[label] < 1:
                return f"{COUNTS}: label {label} has {counts[label]} examples"
        total = sum(int(count) for count in counts.values())
        if total != update.num_examples:
            return f"{COUNTS} are of {total} examples, the client trained on {update.num_examples}"
        return None


def _form_problem(
    record: str, label: str, array: npt.NDArray[Any], shape: tuple[int, ...], dtype: type
) -> str | None:
    if array.shape == shape and array.dtype == dtype:
        return None
    return f"{record}: label {label} is {array.dtype}{array.shape}, not {np.dtype(dtype)}{shape}"


class FedProtoClient(Client):
    """Train the own model near the global prototypes, and send its own ones."""

    def __init__(self, lam: float) -> None:
        self._lam = lam

    def run(self, job: Job) -> None:
        """Send prototypes; the weights stay here, and are in ``job.model`` the next time."""
        trained = self._trained(job)
        means, counts = prototypes_of(job.features(trained), job.labels)
        job.send(trained, arrays={PROTOTYPES: means, COUNTS: counts})

    def weights_to_test(self, job: Job) -> Weights:
        """Return the own model; a newcomer trains one for a round's steps."""
        return job.model if job.state else self._trained(job)

    def _trained(self, job: Job) -> Weights:
        known = job.order.arrays.get(PROTOTYPES)
        near = drawn_to(known, self._lam) if known and self._lam else None
        return job.train(loss=near)


def prototypes_of(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> tuple[Weights, Weights]:
    """Return the mean features of every label that occurs, and how often it does.

    Args:
        features: Shape (n, width).
        labels: Shape (n,).

    Returns:
        Label, as a word -> float32, shape (width,); and -> int64, without dimensions.
    """
    means, counts = {}, {}
    for label in np.unique(labels).tolist():
        own = features[labels == label]
        means[str(label)] = own.mean(axis=0, dtype=np.float64).astype(np.float32)
        counts[str(label)] = np.array(len(own), np.int64)
    return means, counts


def drawn_to(prototypes: Mapping[str, npt.NDArray[np.float32]], lam: float) -> Loss:
    """Return cross-entropy plus ``lam`` times the mean square of features minus prototypes.

    Args:
        prototypes: Label, as a word -> float32, shape (width,); one at least.
        lam: Weight of the mean square, > 0.
    """
    known = np.array([int(label) for label in prototypes])
    aims = np.stack(list(prototypes.values()))

    def of(seen: Seen, targets: Tensor, _: Sequence[Seen]) -> Tensor:
        import torch
        from torch.nn import functional as F

        device = targets.device
        same = targets[:, None] == torch.from_numpy(known).to(device)  # shape (n, prototypes)
        aim = torch.from_numpy(aims).to(device)[same.int().argmax(1)]
        apart = (seen.features.float() - aim) * same.any(1, keepdim=True)
        loss: Tensor = F.cross_entropy(seen.outputs, targets) + lam * apart.square().mean()
        return loss

    return Loss(of)
