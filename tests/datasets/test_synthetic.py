"""synthetic(alpha, beta) and FCUBE: compared with the papers' recipes, written anew and slowly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.helpers import config

from fedexp.datasets.fcube import CORNERS, Fcube
from fedexp.datasets.synthetic import Synthetic
from fedexp.federation.dealing import federate
from fedexp.partitions.given import Given
from fedexp.testing import conforms


def _softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def _model(u: float, rng: np.random.Generator) -> tuple[list[list[float]], list[float]]:
    weights = [[u + rng.standard_normal() for _ in range(10)] for _ in range(60)]
    return weights, [u + rng.standard_normal() for _ in range(10)]


@pytest.mark.parametrize(
    ("alpha", "beta", "iid"), [(0.0, 0.0, False), (1.0, 0.5, False), (1.0, 1.0, True)]
)
def test_labels_are_those_of_a_device_by_device_transcription(
    alpha: float, beta: float, iid: bool
) -> None:
    """The recipe of the paper's section 5.1, number by number, from the same standard normal draws."""
    page = Synthetic(alpha=alpha, beta=beta, iid=iid, devices=3, draw_seed=1)
    train, test = page.load()
    sizes_rng, models, inputs = (np.random.default_rng((1, stream)) for stream in range(3))
    sizes = [int(math.exp(4 + 2 * z)) + 50 for z in sizes_rng.standard_normal(3)]
    shared = _model(0.0, models)
    for device, size in enumerate(sizes):
        u, b_k = alpha * models.standard_normal(), beta * inputs.standard_normal()
        v = [b_k + inputs.standard_normal() for _ in range(60)]
        weights, bias = shared if iid else _model(u, models)
        if iid:
            v = [0.0] * 60
        rows, labels = [], []
        for _ in range(size):
            x = [v[j] + math.sqrt((j + 1) ** -1.2) * inputs.standard_normal() for j in range(60)]
            scores = [sum(x[j] * weights[j][c] for j in range(60)) + bias[c] for c in range(10)]
            rows.append(x)
            labels.append(int(np.argmax(_softmax(scores))))
        cut = int(0.9 * size)
        for part, begin, end in ((train, 0, cut), (test, cut, size)):
            assert part.owners is not None
            mine = part.owners == device
            np.testing.assert_allclose(part.inputs[mine], rows[begin:end], rtol=1e-5, atol=1e-6)
            assert part.targets[mine].tolist() == labels[begin:end]


def test_what_alpha_and_beta_change() -> None:
    """u_k adds ``u_k (sum(x) + 1)`` to the scores of all classes: what is largest stays largest."""
    both, no_beta = Synthetic(devices=5), Synthetic(devices=5, beta=0.0)
    no_alpha = Synthetic(devices=5, alpha=0.0)
    assert (both.load()[0].inputs == no_alpha.load()[0].inputs).all()
    assert (both.load()[0].targets == no_alpha.load()[0].targets).all()
    assert (both.load()[0].inputs != no_beta.load()[0].inputs).any()
    assert both.spec.num_train == no_beta.spec.num_train


def test_iid_inputs_have_the_stated_variances() -> None:
    train, _ = Synthetic(iid=True, devices=30, draw_seed=2).load()
    wanted = np.arange(1, 61) ** -1.2
    assert np.abs(train.inputs.mean(axis=0)).max() < 5 / math.sqrt(len(train))
    np.testing.assert_allclose(train.inputs.var(axis=0), wanted, rtol=5 * math.sqrt(2 / len(train)))


def test_the_page_knows_the_sizes_before_anything_is_drawn() -> None:
    page = Synthetic(devices=7, draw_seed=4)
    train, test = page.load()
    assert (len(train), len(test)) == (page.spec.num_train, page.spec.num_test)
    assert train.owners is not None
    assert test.owners is not None
    assert np.bincount(train.owners).min() >= 45
    assert np.bincount(test.owners, minlength=7).min() >= 5


def test_fcube_owners_have_two_opposite_corners() -> None:
    train, test = Fcube().load()
    for part in (train, test):
        assert part.owners is not None
        assert np.abs(part.inputs).max() <= 1
        for point, label, owner in zip(part.inputs, part.targets, part.owners, strict=True):
            assert (label == 0) == (point[0] > 0)
            signs = "".join("+" if x > 0 else "-" for x in point)
            assert signs in CORNERS[owner].split(" and ")
    assert np.bincount(train.owners * 2 + train.targets).tolist() == [500] * 8  # type: ignore[operator]
    # By hand: uniform on [0, 1], a coordinate's mean is 1/2 and its variance 1/12.
    np.testing.assert_allclose(np.abs(train.inputs).mean(axis=0), 0.5, atol=0.02)
    np.testing.assert_allclose(np.abs(train.inputs).var(axis=0), 1 / 12, atol=0.005)


@pytest.mark.parametrize("page", [Synthetic(devices=4), Fcube()])
def test_every_owner_is_a_client(page: Synthetic | Fcube) -> None:
    data = federate(config(dataset=page, partition=Given()))
    assert data.partition.num_clients == 4
    assert (data.client_test.sizes > 0).all()


@pytest.mark.slow  # whole runs
@pytest.mark.parametrize("page", [Synthetic(devices=4), Fcube()])
def test_the_pages_conform(page: Synthetic | Fcube) -> None:
    conforms(page, ("inline",))
