from __future__ import annotations

import numpy as np
import torch

from fedexp.data.examples import Examples


def test_a_subset_of_grey_images_is_not_taken_for_channels_side_by_side() -> None:
    """torch computes such images in another way: the same image would have other last bits."""
    grey = np.arange(5 * 4 * 4, dtype=np.float32).reshape(5, 4, 4)[:, None]
    every = Examples(grey, np.arange(5))
    some = every.subset(np.array([3, 0]))
    assert some.inputs.tolist() == grey[[3, 0]].tolist()
    assert torch.from_numpy(some.inputs).stride() == (16, 16, 4, 1)
