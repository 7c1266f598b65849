from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fedexp.models.networks import initial_weights
from support.helpers import config, instruction

from fedexp.backends.inline import InlineGrid
from fedexp.data.loading import load_dataset
from fedexp.federation.client import build_client_app
from fedexp.federation.dealing import federate
from fedexp.federation.evaluation import ServerEvaluation
from fedexp.flower.messages import to_record
from fedexp.partitions import Partition
from fedexp.partitions.feature_noise import FeatureNoise, noise_levels, noisy_copies
from fedexp.partitions.iid import Iid

QUIET = FeatureNoise(noise_std=0.08)


def test_strength_grows_from_client_to_client() -> None:
    assert noise_levels(FeatureNoise(noise_std=0.5), 4) == [0.125, 0.25, 0.375, 0.5]


def test_noise_has_the_stated_strength_and_leaves_the_originals_alone() -> None:
    grey = np.full((6, 1, 100, 100), 128, dtype=np.uint8)
    halves = Partition.of([np.array([0, 2]), np.array([1, 3])])
    train, test = noisy_copies(QUIET, 0, (grey, halves), (grey, halves))
    assert (grey == 128).all()
    for images in (train, test):
        assert images.dtype == np.uint8
        # 255 * 0.04 and 255 * 0.08 on 20,000 pixels; rounding adds 1/12 to the variance.
        assert images[[0, 2]].std() == pytest.approx(np.hypot(10.2, 0.29), rel=0.03)
        assert images[[1, 3]].std() == pytest.approx(np.hypot(20.4, 0.29), rel=0.03)
        assert images.mean() == pytest.approx(128, abs=0.5)
        assert (images[4:] == 128).all(), "nobody holds these"
    assert (train != test).any()


def test_noise_stays_within_the_range_of_pixels() -> None:
    extremes = np.zeros((2, 1, 50, 50), dtype=np.uint8)
    extremes[1] = 255
    one = Partition.of([np.arange(2)])
    images, _ = noisy_copies(FeatureNoise(), 0, (extremes, one), (extremes, one))
    # Half of the noise points outwards and is clipped; wrapping around would look like neither.
    for image, pixel in zip(images, (0, 255), strict=True):
        assert (image == pixel).mean() == pytest.approx(0.5, abs=0.03)
    assert images[0].max() < 255 * 0.3 * 6


def test_noise_is_drawn_once_a_seed() -> None:
    grey = np.full((4, 1, 8, 8), 128, dtype=np.uint8)
    halves = Partition.of([np.array([0, 1]), np.array([2, 3])])

    def draw(own: int | None, seed: int) -> bytes:
        noisy = FeatureNoise(seed=own)
        return b"".join(
            a.tobytes() for a in noisy_copies(noisy, seed, (grey, halves), (grey, halves))
        )

    assert draw(None, 1) == draw(None, 1) == draw(1, 0)
    assert draw(None, 1) != draw(None, 2)


def test_clients_see_noise_and_the_server_does_not() -> None:
    plain = federate(config(partition=Iid()))
    noisy = federate(config(partition=FeatureNoise()))
    train, test = load_dataset(config().dataset)
    assert plain.train is train
    assert plain.clients_test is plain.test is test
    assert noisy.test is test
    assert noisy.partition.sha256 == plain.partition.sha256
    assert noisy.client_test.sha256 == plain.client_test.sha256
    for clean, changed in ((train, noisy.train), (test, noisy.clients_test)):
        assert (changed.images != clean.images).any()
        assert changed.labels is clean.labels


def test_a_client_evaluates_on_its_noisy_images() -> None:
    experiment = config(partition=FeatureNoise(noise_std=2.0))
    noisy = federate(experiment)
    weights = initial_weights(experiment.model, noisy.spec, 0)

    def loss(data: object) -> float:
        app = build_client_app(experiment, lambda: data)  # type: ignore[arg-type,return-value]
        grid = InlineGrid(app, 3)
        (reply,) = grid.send_and_receive([instruction(2, 1, to_record(weights), "evaluate")])
        return float(str(reply.content.metric_records["metrics"]["loss"]))

    clean = dataclasses.replace(noisy, noisy_test=None)
    assert loss(noisy) != loss(clean)
    scores = [ServerEvaluation(experiment, data).scores(weights) for data in (noisy, clean)]
    assert scores[0] == scores[1]
