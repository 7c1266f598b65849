from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedexp.core.seeding import derive_seed
from fedexp.core.weights import copied
from fedexp.training.network import Network, keyed_chance

CPU = torch.device("cpu")


def _draw(seed: int = 0, server_round: int = 1, client: int = 2) -> list[float]:
    with keyed_chance(seed, server_round, client, CPU):
        drawn: list[float] = torch.rand(3).tolist()
    return drawn


def test_chance_is_keyed_on_seed_round_and_client() -> None:
    expected = torch.rand(3, generator=torch.Generator().manual_seed(derive_seed(0, "model", 1, 2)))
    assert _draw() == _draw() == expected.tolist()
    others = [_draw(seed=1), _draw(server_round=2), _draw(client=1)]
    assert len({str(drawn) for drawn in [_draw(), *others]}) == 4


def test_torchs_generator_is_given_back() -> None:
    before = torch.get_rng_state()
    _draw()
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(RuntimeError), keyed_chance(0, 1, 0, CPU):
        torch.rand(2).view(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_are_copies_both_ways() -> None:
    network = Network(nn.Linear(2, 1), CPU)
    first = network.weights()
    kept = copied(first)
    with torch.no_grad():
        next(network.module.parameters()).zero_()
    assert first["weight"].tolist() == kept["weight"].tolist()
    network.load(kept)
    kept["weight"][:] = 7
    assert network.weights()["weight"].tolist() == first["weight"].tolist()


def test_integers_stay_integers() -> None:
    network = Network(nn.BatchNorm1d(2), CPU)
    weights = network.weights()
    assert weights["num_batches_tracked"].dtype == np.int64
    network.load({**weights, "num_batches_tracked": np.array(2**53 + 1)})
    assert int(network.weights()["num_batches_tracked"]) == 2**53 + 1
    with pytest.raises(TypeError):  # a mean that nobody rounded
        network.load({**weights, "num_batches_tracked": np.array(1.5)})


class _Tied(nn.Module):
    """A language model whose head is its embedding, as GPT-2's is."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.middle = nn.Embedding(5, 3), nn.Linear(3, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_a_head_is_found_under_the_name_that_it_has_among_the_weights() -> None:
    once = Network(_Tied(), CPU, keeps_frozen=True)
    assert "head.weight" not in once.weights()
    assert once.layers.head == {"embedding.weight"}
    assert Network(_Tied(), CPU).layers.head == {"head.weight"}
