"""synthetic(alpha, beta) of any number of devices, each drawn where it trains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedexp.core.options import ranged
from fedexp.core.seeding import derive_rng
from fedexp.data.examples import Examples, Spec
from fedexp.datasets.base import PopulationDataset, register
from fedexp.datasets.synthetic import (
    FEWEST,
    NUM_CLASSES,
    NUM_INPUTS,
    SPREAD,
    TRAIN_SHARE,
    Floats,
    draw_model,
)


@register
@dataclass(frozen=True)
class SyntheticDevices(PopulationDataset):
    """synthetic(alpha, beta) of FedProx, of any number of devices: Li et al., arXiv 1812.06127.

    The recipe is that of ``dataset=synthetic``, which also says why ``alpha`` decides nothing. A device
    has a model W, b, inputs and a size of its own; all are drawn from a generator of its own, when and
    where they are asked for. So there may be a hundred million devices. A device has the same examples
    whatever ``clients.num`` is, whoever else takes part, and on every backend.

    With ``partition=population``, every client is a device, and is tested on its own test examples, a
    tenth of those it has. The server's test set is the test examples of the clients that are listed
    (``partition.panel``).

    Every device draws a model of its own. So many devices have nothing in common that a global model
    could learn: it learns 30 devices by heart, but is no better than chance, 0.1, on very many. With
    ``iid``, all devices have the same model.

    Departures: alpha and beta are standard deviations, as in the authors' code; the paper's notation can
    be read as variances. The draws are NumPy's PCG64, so the examples are neither the authors' nor those
    of ``dataset=synthetic``. Sizes have no upper end: of a hundred million devices, the largest has some
    millions of examples.
    """

    facts = Spec((NUM_INPUTS,), tuple(str(label) for label in range(NUM_CLASSES)), 0, 0)

    name: str = "synthetic_devices"
    alpha: float = ranged(1.0, ge=0, le=100)
    """Standard deviation of u_k, to which labels are blind; kept because papers state it."""
    beta: float = ranged(1.0, ge=0, le=100)
    """Standard deviation of B_k: how much the devices' inputs differ."""
    iid: bool = False
    """The paper's Synthetic-IID: one W and b for all, inputs around 0, whatever alpha and beta."""
    samples_per_client: int | None = ranged(None, ge=1, le=1_000_000)
    """Training examples that every device has, with a ninth as many test examples, one at least. null
    draws log-normal sizes as in the paper: 50 examples at least, 104 in the median, a tenth for tests."""
    draw_seed: int = ranged(0, ge=0)
    """Seed of the draw; it does not follow the experiment's seed, so that all runs have the same data."""

    def draw(self, client: int) -> tuple[Examples, Examples]:
        """Draw one device's examples, float32, shape (n, 60), and their labels."""
        rng = derive_rng(self.draw_seed, "device", 0, client)
        num_train, num_test = self._sizes(rng)
        weights, bias = draw_model(self.alpha * rng.standard_normal(), rng)
        b_k = self.beta * rng.standard_normal()
        around = b_k + rng.standard_normal(NUM_INPUTS)
        x = SPREAD * rng.standard_normal((num_train + num_test, NUM_INPUTS))
        if self.iid:
            weights, bias = draw_model(0.0, derive_rng(self.draw_seed, "shared_model"))
        else:
            x += around
        inputs, labels = x.astype(np.float32), _labels(x, weights, bias)
        return (
            Examples(inputs[:num_train], labels[:num_train]),
            Examples(inputs[num_train:], labels[num_train:]),
        )

    def sizes(self, client: int) -> tuple[int, int]:
        """Return how many training and test examples a device has; none is drawn."""
        return self._sizes(derive_rng(self.draw_seed, "device", 0, client))

    def _sizes(self, rng: np.random.Generator) -> tuple[int, int]:
        # Drawn in any case: a fixed size shall change no model, and no input but by leaving some out.
        size = int(rng.lognormal(4, 2)) + FEWEST
        if self.samples_per_client is not None:
            return self.samples_per_client, max(1, round(self.samples_per_client / 9))
        num_train = int(TRAIN_SHARE * size)
        return num_train, size - num_train


def _labels(x: Floats, weights: Floats, bias: Floats) -> npt.NDArray[np.int64]:
    """Return argmax(W x + b) of every row of x, int64, shape (n,).

    Added up input by input: a matrix product may round differently with another number of threads.
    """
    scores = np.tile(bias, (len(x), 1))
    for own, of_input in zip(x.T, weights, strict=True):
        scores += own[:, None] * of_input
    best: npt.NDArray[np.int64] = scores.argmax(axis=1).astype(np.int64)
    return best
