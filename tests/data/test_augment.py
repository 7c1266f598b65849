from __future__ import annotations

import pytest
import torch

from fedexp.data.augment import augment


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _shifted(image: torch.Tensor, down: int, right: int, padding: int) -> torch.Tensor:
    """Cut a window out of the padded image, pixel by pixel: what augment must amount to."""
    _, height, width = image.shape
    out = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            y, x = row + down - padding, column + right - padding
            if 0 <= y < height and 0 <= x < width:
                out[:, row, column] = image[:, y, x]
    return out


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_every_image_is_one_of_the_possible_crops(dtype: torch.dtype) -> None:
    image = torch.arange(1, 2 * 3 * 4 + 1).view(2, 3, 4).to(dtype)
    found = augment(image.expand(400, -1, -1, -1), _generator(), padding=1, flip=True)
    assert (found.shape, found.dtype) == ((400, 2, 3, 4), dtype)
    crops = [_shifted(image, down, right, 1) for down in range(3) for right in range(3)]
    possible = [crop.flip(2) if mirrored else crop for mirrored in (False, True) for crop in crops]
    counts = [sum(torch.equal(one, crop) for one in found) for crop in possible]
    assert sum(counts) == 400
    assert min(counts) > 0, "all 9 places, both ways round"
    # 18 outcomes of 22 each on average; the mirrored ones are half of 400, give or take 5 sigma.
    assert 150 <= sum(counts[9:]) <= 250


def test_without_padding_and_flip_nothing_changes() -> None:
    images = torch.rand(5, 3, 4, 4)
    assert torch.equal(augment(images, _generator(), padding=0, flip=False), images)


def test_a_flip_alone_mirrors_left_and_right() -> None:
    images = torch.tensor([[[[1, 2], [3, 4]]]]).expand(64, -1, -1, -1)
    found = {str(image.tolist()) for image in augment(images, _generator(), 0, flip=True)}
    assert found == {"[[[1, 2], [3, 4]]]", "[[[2, 1], [4, 3]]]"}


def test_the_generator_decides_and_batches_do_not() -> None:
    images = torch.randint(256, (64, 3, 8, 8), dtype=torch.uint8, generator=_generator(9))
    original, before = images.clone(), torch.get_rng_state()
    whole = augment(images, _generator(1), 4, flip=True)
    assert torch.equal(whole, augment(images, _generator(1), 4, flip=True))
    assert not torch.equal(whole, augment(images, _generator(2), 4, flip=True))
    generator = _generator(1)
    parts = [augment(part, generator, 4, flip=True) for part in images.split(10)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(images, original)
    assert torch.equal(torch.get_rng_state(), before)
