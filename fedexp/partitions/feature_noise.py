"""Feature skew: the same pixels, seen by every client through noise of another strength.

Li et al., "Federated Learning on Non-IID Data Silos" (NIID-Bench), arXiv 2102.02079.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedexp.core.seeding import derive_rng
from fedexp.data.partition import Partition
from fedexp.partitions.options import FeatureNoisePartition

Pixels = npt.NDArray[np.uint8]


def noise_levels(config: FeatureNoisePartition, num_clients: int) -> list[float]:
    """Return every client's standard deviation, on pixels scaled to [0, 1].

    Client ``k`` of ``n`` (from 0) has ``noise_std * (k + 1) / n``. NIID-Bench's text makes that the
    variance, not the standard deviation.
    """
    return [config.noise_std * (client + 1) / num_clients for client in range(num_clients)]


def noisy_copies(
    config: FeatureNoisePartition,
    seed: int,
    train: tuple[Pixels, Partition],
    test: tuple[Pixels, Partition],
) -> tuple[Pixels, Pixels]:
    """Return the images as their holders see them; images that nobody holds stay as they are.

    The noise is drawn once and not per epoch, clipped to the range of pixels and rounded to whole
    ones, so that images stay uint8 everywhere.

    Args:
        config: Strength of the noise; its seed wins over ``seed`` when set.
        seed: The experiment's seed.
        train: Training images, uint8, shape (N, channels, height, width), and who holds which.
        test: The same of the test images.
    """
    own_seed = seed if config.seed is None else config.seed
    pictures = train[0].copy(), test[0].copy()
    for client, level in enumerate(noise_levels(config, train[1].num_clients)):
        rng = derive_rng(own_seed, "feature_noise", client=client)
        for images, partition in zip(pictures, (train[1], test[1]), strict=True):
            held = partition.client(client)
            images[held] = _with_noise(images[held], 255 * level, rng)
    return pictures


def _with_noise(images: Pixels, std: float, rng: np.random.Generator) -> Pixels:
    noisy = rng.standard_normal(images.shape, dtype=np.float32)
    noisy *= np.float32(std)
    noisy += images
    np.clip(np.rint(noisy, out=noisy), 0, 255, out=noisy)
    return noisy.astype(np.uint8)
