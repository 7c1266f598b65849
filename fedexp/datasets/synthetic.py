"""synthetic(alpha, beta): devices whose models and inputs differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedexp.core.options import ranged
from fedexp.data.examples import Examples, Spec
from fedexp.datasets.base import Dataset, register

NUM_INPUTS, NUM_CLASSES = 60, 10
FEWEST = 50
"""Examples that every device has at least, training and test together."""
TRAIN_SHARE = 0.9
SPREAD = np.arange(1, NUM_INPUTS + 1) ** -0.6
"""Deviations of the inputs within a device: of the j-th the variance is j^-1.2."""

Floats = npt.NDArray[np.float64]


@register
@dataclass(frozen=True)
class Synthetic(Dataset):
    """synthetic(alpha, beta) of FedProx: Li et al., arXiv 1812.06127, section 5.1.

    Inputs are 60 numbers, labels 10 classes. Device k labels its inputs by ``argmax(W x + b)``, with W
    and b drawn around u_k, and u_k around 0. Its inputs lie around v_k, and v_k around B_k; the variance
    of the j-th is j^-1.2. Sizes are log-normal, 50 at least; a tenth of a device's examples are its
    test examples. ``partition=given`` makes a client of every device.

    ``beta`` decides how far inputs are apart. ``alpha`` decides nothing: u_k is added to the score of
    every class alike, so labels are the same for any of it. Models differ as each device draws its own.

    Departures: alpha and beta are standard deviations, as in the authors' code; the paper's notation can
    be read as variances. The draws are NumPy's PCG64, so the examples are not the authors' own.
    """

    name: str = "synthetic"
    alpha: float = ranged(1.0, ge=0, le=100)
    """Standard deviation of u_k, to which labels are blind; kept because papers state it."""
    beta: float = ranged(1.0, ge=0, le=100)
    """Standard deviation of B_k: how much the devices' inputs differ."""
    iid: bool = False
    """The paper's Synthetic-IID: one W and b for all, inputs around 0, whatever alpha and beta."""
    devices: int = ranged(30, ge=1, le=10_000)
    """Devices that examples are drawn for; the FedProx paper has 30, the q-FFL paper 100."""
    draw_seed: int = ranged(0, ge=0)
    """Seed of the draw; it does not follow the experiment's seed, so that all runs have the same data."""

    @property
    def spec(self) -> Spec:
        """Shape, classes, devices and sizes; no example is drawn for that."""
        sizes = _sizes(self.devices, _streams(self)[0])
        num_train = _num_train(sizes)
        return Spec(
            (NUM_INPUTS,),
            tuple(str(label) for label in range(NUM_CLASSES)),
            int(num_train.sum()),
            int((sizes - num_train).sum()),
            owners=tuple(f"device {k}" for k in range(self.devices)),
        )

    def load(self) -> tuple[Examples, Examples]:
        """Draw the examples."""
        of_sizes, of_models, of_inputs = _streams(self)
        sizes = _sizes(self.devices, of_sizes)
        inputs, labels = [], []
        shared = draw_model(0.0, of_models)
        for size in sizes:
            u, b_k = (
                self.alpha * of_models.standard_normal(),
                self.beta * of_inputs.standard_normal(),
            )
            around = b_k + of_inputs.standard_normal(NUM_INPUTS)
            weights, bias = shared if self.iid else draw_model(u, of_models)
            drawn = SPREAD * of_inputs.standard_normal((size, NUM_INPUTS))
            x = drawn if self.iid else drawn + around
            inputs.append(x.astype(np.float32))
            labels.append((x @ weights + bias).argmax(axis=1).astype(np.int64))
        owners = np.repeat(np.arange(self.devices), sizes)
        place = np.arange(len(owners)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        is_train = place < np.repeat(_num_train(sizes), sizes)
        drawn_all = Examples(np.concatenate(inputs), np.concatenate(labels), owners)
        return (
            drawn_all.subset(np.flatnonzero(is_train)),
            drawn_all.subset(np.flatnonzero(~is_train)),
        )


def _streams(page: Synthetic) -> list[np.random.Generator]:
    """Return generators of sizes, of models and of inputs: changing alpha leaves inputs as they are."""
    return [np.random.default_rng((page.draw_seed, what)) for what in range(3)]


def _sizes(devices: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return how many examples each device has: a log-normal number of median 55 rounded down, and 50."""
    return rng.lognormal(4, 2, devices).astype(np.int64) + FEWEST


def _num_train(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return (TRAIN_SHARE * sizes).astype(np.int64)


def draw_model(u: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw W, shape (60, 10), and b, shape (10,), around u with deviation 1."""
    return (
        u + rng.standard_normal((NUM_INPUTS, NUM_CLASSES)),
        u + rng.standard_normal(NUM_CLASSES),
    )
