"""Feature skew: the same pixels, seen by every client through noise of another strength."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedexp.core.options import FedexpError, Plan, ranged
from fedexp.core.seeding import derive_rng
from fedexp.data.assignment import Indices
from fedexp.partitions.base import Held, Labels, Partition, register
from fedexp.partitions.iid import Iid
from fedexp.tasks import NOTHING

Pixels = npt.NDArray[np.uint8]


@register
@dataclass(frozen=True)
class FeatureNoise(Partition):
    """A uniform random split; client ``k`` of ``n`` sees pixels through noise of its own strength.

    NIID-Bench (Li et al., arXiv 2102.02079). ``noise_std`` is the standard deviation at the last client,
    on pixels scaled to [0, 1]: client ``k`` (from 0) has ``noise_std * (k + 1) / n``. NIID-Bench's text
    makes that the variance, not the standard deviation. The noise is drawn once and not per epoch,
    clipped to the range of pixels and rounded to whole ones, so that images stay uint8 everywhere.
    """

    deals_by = NOTHING

    name: str = "feature_noise"
    noise_std: float = ranged(0.3, gt=0)
    """Standard deviation of the last client's noise, on pixels scaled to [0, 1]."""

    @property
    def label(self) -> str:
        """As in ``noise0.3``."""
        return f"noise{self.noise_std:g}"

    def errors(self, plan: Plan) -> Iterable[str]:
        """Noise on pixels needs pixels."""
        if plan.dataset.kind != "image":
            yield (
                f"partition=feature_noise adds noise to pixels: dataset={plan.dataset.name} has "
                f"inputs of kind {plan.dataset.kind}; another partition"
            )

    def deal(self, labels: Labels, num_clients: int, seed: int) -> Sequence[Indices]:
        """Split as ``iid`` does."""
        return Iid(seed=self.seed).deal(labels, num_clients, seed)

    def as_seen(self, train: Held, test: Held, seed: int) -> tuple[Pixels, Pixels]:
        """Return the images as their holders see them; images that nobody holds stay as they are."""
        for images, _ in (train, test):
            if images.dtype != np.uint8:
                raise FedexpError(
                    f"partition=feature_noise is for images as uint8, 0 to 255, got {images.dtype}"
                )
        pictures = train[0].copy(), test[0].copy()
        for client, level in enumerate(self.levels(train[1].num_clients)):
            rng = derive_rng(self.own_seed(seed), "feature_noise", client=client)
            for images, assignment in zip(pictures, (train[1], test[1]), strict=True):
                held = assignment.client(client)
                images[held] = _with_noise(images[held], 255 * level, rng)
        return pictures

    def levels(self, num_clients: int) -> list[float]:
        """Return every client's standard deviation, on pixels scaled to [0, 1]."""
        return [self.noise_std * (client + 1) / num_clients for client in range(num_clients)]

    def describe(self, num_clients: int) -> dict[str, Any]:
        """Return every client's standard deviation as ``noise_std``."""
        return {"noise_std": self.levels(num_clients)}


def _with_noise(images: Pixels, std: float, rng: np.random.Generator) -> Pixels:
    noisy = rng.standard_normal(images.shape, dtype=np.float32)
    noisy *= np.float32(std)
    noisy += images
    np.clip(np.rint(noisy, out=noisy), 0, 255, out=noisy)
    return noisy.astype(np.uint8)
