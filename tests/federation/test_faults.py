from __future__ import annotations

import numpy as np
import pytest
from fedexp.federation.behaviour import (
    DroppedOutError,
    byzantine_clients,
    drop_out,
    faulty_examples,
    faulty_weights,
    steps_of,
)
from support.helpers import config, tiny_data

from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.config.training import TrainingConfig


def _faulty(kind: str, scale: float = 2.0, fraction: float = 0.2) -> ClientsConfig:
    return ClientsConfig(num=10, byzantine=ByzantineConfig(fraction, kind, scale))


def test_the_share_of_clients_that_drop_out() -> None:
    experiment = config(clients=ClientsConfig(num=10, dropout=0.3))

    def fails(server_round: int, client: int) -> bool:
        try:
            drop_out(experiment, server_round, client)
        except DroppedOutError:
            return True
        return False

    drawn = [fails(k, client) for k in range(1, 101) for client in range(10)]
    assert 0.25 < np.mean(drawn) < 0.35
    assert drawn[:10] == [fails(1, client) for client in range(10)]
    # Each client and each round has a draw of its own.
    by_round = np.array(drawn).reshape(100, 10)
    assert by_round.any(axis=0).all()
    assert not by_round.all(axis=1).any()
    drop_out(config(), 1, 0)  # nobody drops out unless asked to


def test_stragglers_train_for_fewer_epochs() -> None:
    training = TrainingConfig(local_epochs=4, batch_size=10)
    late = config(clients=ClientsConfig(num=10, stragglers=1.0), training=training)
    drawn = {steps_of(late, k, 3, num_examples=25) for k in range(1, 60)}
    assert drawn == {3, 6, 9}  # one to three epochs of three batches; never all four
    assert steps_of(config(training=training), 1, 3, num_examples=25) == 12


def test_stragglers_of_steps() -> None:
    training = TrainingConfig(local_steps=3)
    late = config(clients=ClientsConfig(num=10, stragglers=1.0), training=training)
    assert {steps_of(late, k, 3, 25) for k in range(1, 40)} == {1, 2}


def test_a_fixed_fifth_is_faulty() -> None:
    chosen = byzantine_clients(config(clients=_faulty("label_flip")))
    assert len(set(chosen)) == 2
    assert chosen == byzantine_clients(config(clients=_faulty("sign_flip")))
    assert byzantine_clients(config()) == []


def test_flipped_labels() -> None:
    examples = tiny_data().train
    flipped = faulty_examples(config(clients=_faulty("label_flip")), examples, 10)
    assert (flipped.labels == 9 - examples.labels).all()
    same = faulty_examples(config(clients=_faulty("gaussian")), examples, 10)
    assert same is examples


def test_what_faulty_clients_send() -> None:
    before = {"w": np.array([1.0, 2.0], np.float32), "n": np.array(3)}
    after = {"w": np.array([2.0, 0.0], np.float32), "n": np.array(5)}
    flipped = faulty_weights(config(clients=_faulty("sign_flip")), before, after, 1, 0)
    assert flipped["w"].tolist() == [-1.0, 6.0]  # 1 - 2 * 1, 2 - 2 * (-2)
    assert flipped["w"].dtype == np.float32
    assert flipped["n"] == 5
    large = {"w": np.zeros(100_000, np.float32)}
    noise = faulty_weights(config(clients=_faulty("gaussian")), large, large, 1, 0)["w"]
    assert noise.std() == pytest.approx(2.0, rel=0.02)
    other = faulty_weights(config(clients=_faulty("gaussian")), large, large, 1, 1)["w"]
    assert (noise != other).any()
    later = faulty_weights(config(clients=_faulty("gaussian")), large, large, 2, 0)["w"]
    assert (noise != later).any()


def test_a_share_of_clients_straggles() -> None:
    training = TrainingConfig(local_epochs=4, batch_size=10)
    late = config(clients=ClientsConfig(num=10, stragglers=0.3), training=training)
    drawn = [steps_of(late, k, client, 25) for k in range(1, 101) for client in range(10)]
    assert 0.25 < np.mean(np.array(drawn) < 12) < 0.35
