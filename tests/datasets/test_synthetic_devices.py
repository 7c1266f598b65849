"""``dataset=synthetic_devices``: a device is a function of its number, drawn as FedProx's paper does."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass, replace
from itertools import count
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedexp.core.seeding import derive_rng
from fedexp.data.examples import Examples, Spec
from fedexp.data.loading import digest, load
from fedexp.datasets import PopulationDataset
from fedexp.datasets.synthetic_devices import SyntheticDevices
from fedexp.testing import DoesNotConform, conforms

MANY = 100_000_000
CLIENTS = st.integers(0, MANY - 1)
PAGES = st.builds(
    SyntheticDevices,
    alpha=st.floats(0, 100),
    beta=st.floats(0, 100),
    iid=st.booleans(),
    samples_per_client=st.none() | st.integers(1, 80),
    draw_seed=st.integers(0, 2**32 - 1),
)


def _same(one: tuple[Examples, Examples], other: tuple[Examples, Examples]) -> bool:
    return all(
        a.inputs.tobytes() == b.inputs.tobytes() and a.targets.tobytes() == b.targets.tobytes()
        for a, b in zip(one, other, strict=True)
    )


def _model(u: float, rng: np.random.Generator) -> tuple[list[list[float]], list[float]]:
    weights = [[u + rng.standard_normal() for _ in range(10)] for _ in range(60)]
    return weights, [u + rng.standard_normal() for _ in range(10)]


@pytest.mark.parametrize(
    ("alpha", "beta", "iid", "fixed"),
    [
        (0.0, 0.0, False, None),
        (1.0, 0.5, False, None),
        (1.0, 1.0, True, None),
        (1.0, 1.0, False, 9),
    ],
)
def test_a_device_is_that_of_a_transcription_of_the_paper(
    alpha: float, beta: float, iid: bool, fixed: int | None
) -> None:
    """Section 5.1 number by number, from the same standard normal draws."""
    device = 12_345_678
    page = SyntheticDevices(alpha=alpha, beta=beta, iid=iid, samples_per_client=fixed, draw_seed=3)
    rng = derive_rng(3, "device", 0, device)
    size = int(math.exp(4 + 2 * rng.standard_normal())) + 50
    cut = int(0.9 * size)
    if fixed is not None:
        cut, size = fixed, fixed + 1
    weights, bias = _model(alpha * rng.standard_normal(), rng)
    b_k = beta * rng.standard_normal()
    v = [b_k + rng.standard_normal() for _ in range(60)]
    if iid:
        v = [0.0] * 60
        weights, bias = _model(0.0, derive_rng(3, "shared_model"))
    rows, labels = [], []
    for _ in range(size):
        x = [v[j] + math.sqrt((j + 1) ** -1.2) * rng.standard_normal() for j in range(60)]
        scores = [sum(x[j] * weights[j][c] for j in range(60)) + bias[c] for c in range(10)]
        rows.append(x)
        labels.append(scores.index(max(scores)))
    train, test = page.draw(device)
    for part, begin, end in ((train, 0, cut), (test, cut, size)):
        np.testing.assert_allclose(part.inputs, rows[begin:end], rtol=1e-5, atol=1e-6)
        assert part.targets.tolist() == labels[begin:end]


@settings(deadline=None, max_examples=30)
@given(PAGES, CLIENTS, CLIENTS)
def test_a_device_follows_from_its_number(page: SyntheticDevices, device: int, other: int) -> None:
    drawn = train, test = page.draw(device)
    assert page.sizes(device) == (len(train), len(test))
    assert len(test) > 0
    for part in drawn:
        assert part.inputs.dtype == np.float32
        assert part.inputs.shape == (len(part), 60)
        assert part.targets.dtype == np.int64
        assert 0 <= part.targets.min() <= part.targets.max() < 10
    page.draw(other)
    assert _same(drawn, page.draw(device)), "whom else one asked makes no difference"
    assert _same(drawn, pickle.loads(pickle.dumps(page)).draw(device))
    rows = {row.tobytes() for row in np.concatenate([train.inputs, test.inputs])}
    assert len(rows) == len(train) + len(test), "nothing is tested on that was trained on"
    if other != device:
        assert not rows & {row.tobytes() for row in page.draw(other)[0].inputs}


@settings(deadline=None, max_examples=30)
@given(PAGES, CLIENTS)
def test_options_change_what_they_are_about(page: SyntheticDevices, device: int) -> None:
    drawn = page.draw(device)
    assert _same(drawn, replace(page, alpha=0.0).draw(device)), "labels are blind to it"
    some = replace(page, samples_per_client=3).draw(device)[0]
    more = replace(page, samples_per_client=40).draw(device)[0]
    assert (some.inputs == more.inputs[:3]).all()
    assert (some.targets == more.targets[:3]).all()
    assert not _same(drawn, replace(page, draw_seed=page.draw_seed + 1).draw(device))


def test_sizes_are_the_papers_log_normal_ones_or_fixed() -> None:
    sizes = np.array([sum(SyntheticDevices().sizes(device)) for device in range(4_000)]) - 50
    logs = np.log(sizes + 0.5)
    assert sizes.min() >= 0
    assert np.median(logs) == pytest.approx(4, abs=0.15)
    assert logs.std() == pytest.approx(2, rel=0.1)
    assert SyntheticDevices(samples_per_client=60).sizes(MANY) == (60, 7)
    assert SyntheticDevices(samples_per_client=1).sizes(MANY) == (1, 1)


def test_devices_differ_in_their_models_unless_all_share_one() -> None:
    def disagreement(page: SyntheticDevices) -> float:
        """Fit a linear rule to one device's labels, and see how often it is wrong on another's."""
        parts = [page.draw(device)[0] for device in (0, 1)]
        own = [np.hstack([part.inputs, np.ones((len(part), 1))]) for part in parts]
        moments = own[0].T @ own[0] + 1e-3 * np.eye(61)
        rule = np.linalg.solve(moments, own[0].T @ np.eye(10)[parts[0].targets])
        return float(((own[1] @ rule).argmax(axis=1) != parts[1].targets).mean())

    assert disagreement(SyntheticDevices(iid=True, samples_per_client=500)) < 0.5
    assert disagreement(SyntheticDevices(samples_per_client=500)) > 0.7


def test_draws_are_those_of_every_other_version() -> None:
    train, test = SyntheticDevices(samples_per_client=4).draw(99_999_999)
    assert train.targets.tolist() == [4, 2, 4, 2]
    assert test.targets.tolist() == [4]
    first = [0.5458624, 0.14540976, -0.06876505, 0.31282493]
    assert train.inputs[:, 0].tolist() == pytest.approx(first, rel=1e-6)
    assert SyntheticDevices().sizes(99_999_999) == (45, 6)


def test_two_populations_are_told_apart_by_their_first_clients() -> None:
    page = SyntheticDevices(samples_per_client=2)
    assert digest(page) == digest(SyntheticDevices(samples_per_client=2))
    assert (
        len({digest(page), digest(replace(page, beta=0.5)), digest(replace(page, draw_seed=1))})
        == 3
    )
    assert len(load(page)[0]) == 32


@dataclass(frozen=True)
class Forgetful(PopulationDataset):
    """Draws other examples whenever it is asked."""

    facts = Spec((2,), ("a", "b"), 0, 0)
    drawn: ClassVar[count[int]] = count()

    name: str = "forgetful"

    def draw(self, client: int) -> tuple[Examples, Examples]:
        found = np.full((3, 2), client + next(self.drawn), np.float32)
        return Examples(found, np.arange(3) % 2), Examples(found[:1], np.zeros(1, np.int64))


@dataclass(frozen=True)
class Miscounted(Forgetful):
    """Says of clients that they have more than they do."""

    name: str = "miscounted"

    def sizes(self, client: int) -> tuple[int, int]:
        return 4, 1


@pytest.mark.parametrize(
    ("page", "named"), [(Forgetful(), "other examples the second time"), (Miscounted(), "sizes(0)")]
)
def test_a_population_that_breaks_its_contract_is_told(page: Forgetful, named: str) -> None:
    with pytest.raises(DoesNotConform) as caught:
        conforms(page, ("inline",))
    assert named in str(caught.value)


@pytest.mark.slow  # whole runs
def test_the_page_conforms() -> None:
    conforms(SyntheticDevices(samples_per_client=20), ("inline",))
