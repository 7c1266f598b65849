"""FCUBE: points in a cube, of which every client has two opposite corners."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedexp.data.examples import Examples, Spec
from fedexp.datasets.base import Dataset, register

NUM_TRAIN, NUM_TEST = 4_000, 1_000
CORNERS = ("+++ and ---", "++- and --+", "+-+ and -+-", "+-- and -++")
"""Signs of the three coordinates in the two octants of each owner."""


@register
@dataclass(frozen=True)
class Fcube(Dataset):
    """FCUBE of NIID-Bench, Li et al., arXiv 2102.02079: two classes, apart at x1 = 0.

    Points are uniform in the cube from -1 to 1. Each of four owners has 1,000 training points, half of
    them in one octant and half in the octant opposite to it: inputs differ between owners, the mix of
    labels does not. ``partition=given`` makes a client of each. Test points are uniform in the whole
    cube; they belong to the owner of their octant, which the paper leaves open. Always the same examples.
    """

    facts = Spec((3,), ("x1 > 0", "x1 < 0"), NUM_TRAIN, NUM_TEST, owners=CORNERS)

    name: str = "fcube"

    def load(self) -> tuple[Examples, Examples]:
        """Draw the points."""
        rng = np.random.default_rng(0)
        owners = np.repeat(np.arange(4), NUM_TRAIN // 4)
        # Within the octant where x1 > 0, then every second point on the other side of the origin.
        signs = np.stack([np.ones(NUM_TRAIN), 1 - 2 * (owners // 2), 1 - 2 * (owners % 2)], axis=1)
        signs[1::2] *= -1
        points = [signs * rng.random((NUM_TRAIN, 3)), rng.uniform(-1, 1, (NUM_TEST, 3))]
        train, test = (_examples(part.astype(np.float32)) for part in points)
        return train, test


def _examples(points: npt.NDArray[np.float32]) -> Examples:
    """Return points with their classes and owners, both by the signs of coordinates."""
    back = points[:, 0] < 0
    above, right = ((points[:, k] < 0) != back for k in (1, 2))
    return Examples(points, back.astype(np.int64), (2 * above + right).astype(np.int64))
