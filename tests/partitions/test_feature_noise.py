from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.helpers import config

from fedexp.core.options import FedexpError
from fedexp.core.roles import Order
from fedexp.data.assignment import Assignment
from fedexp.data.federated import FederatedData
from fedexp.data.loading import load
from fedexp.federation.client import ClientNode
from fedexp.federation.dealing import federate
from fedexp.federation.evaluation import ServerEvaluation
from fedexp.partitions.feature_noise import FeatureNoise
from fedexp.partitions.iid import Iid

QUIET = FeatureNoise(noise_std=0.08)


def test_strength_grows_from_client_to_client() -> None:
    noisy = FeatureNoise(noise_std=0.5)
    assert noisy.levels(4) == [0.125, 0.25, 0.375, 0.5]
    assert noisy.describe(4) == {"noise_std": [0.125, 0.25, 0.375, 0.5]}


def test_noise_has_the_stated_strength_and_leaves_the_originals_alone() -> None:
    grey = np.full((6, 1, 100, 100), 128, dtype=np.uint8)
    halves = Assignment.of([np.array([0, 2]), np.array([1, 3])])
    train, test = QUIET.as_seen((grey, halves), (grey, halves), 0)
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
    one = Assignment.of([np.arange(2)])
    images, _ = FeatureNoise().as_seen((extremes, one), (extremes, one), 0)
    # Half of the noise points outwards and is clipped; wrapping around would look like neither.
    for image, pixel in zip(images, (0, 255), strict=True):
        assert (image == pixel).mean() == pytest.approx(0.5, abs=0.03)
    assert images[0].max() < 255 * 0.3 * 6


def test_noise_is_for_whole_pixels() -> None:
    # Rounding and clipping to 0 .. 255 would leave nothing of images between 0 and 1.
    floats, one = np.full((2, 1, 8, 8), 0.5, np.float32), Assignment.of([np.arange(2)])
    with pytest.raises(FedexpError, match="uint8"):
        FeatureNoise().as_seen((floats, one), (floats, one), 0)


def test_noise_is_drawn_once_a_seed() -> None:
    grey = np.full((4, 1, 8, 8), 128, dtype=np.uint8)
    halves = Assignment.of([np.array([0, 1]), np.array([2, 3])])

    def draw(own: int | None, seed: int) -> bytes:
        noisy = FeatureNoise(seed=own)
        seen = noisy.as_seen((grey, halves), (grey, halves), seed)
        return b"".join(images.tobytes() for images in seen)

    assert draw(None, 1) == draw(None, 1) == draw(1, 0)
    assert draw(None, 1) != draw(None, 2)


def test_clients_see_noise_and_the_server_does_not() -> None:
    plain = federate(config(partition=Iid()))
    noisy = federate(config(partition=FeatureNoise()))
    train, test = load(config().dataset)
    assert plain.train is train
    assert plain.clients_test is plain.test is test
    assert noisy.test is test
    assert noisy.partition.sha256 == plain.partition.sha256
    assert noisy.client_test.sha256 == plain.client_test.sha256
    for clean, changed in ((train, noisy.train), (test, noisy.clients_test)):
        assert (changed.inputs != clean.inputs).any()
        assert changed.targets is clean.targets


def test_a_client_evaluates_on_its_noisy_images() -> None:
    experiment = config(partition=FeatureNoise(noise_std=2.0))
    noisy = federate(experiment)
    clean = dataclasses.replace(noisy, seen_test=None)
    weights = ServerEvaluation(experiment, noisy).initial

    def loss(data: FederatedData) -> float:
        reply = ClientNode(experiment, lambda: data).evaluate(2, 1, Order(weights), {})
        return float(reply.numbers["loss"])

    assert loss(noisy) != loss(clean)
    scores = [ServerEvaluation(experiment, data).scores(weights) for data in (noisy, clean)]
    assert scores[0] == scores[1]
