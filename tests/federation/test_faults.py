from __future__ import annotations

import numpy as np
import pytest
from support.helpers import config, same_weights, sent, tiny_data, values, weights_of

from fedexp.attacks import LittleIsEnough
from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.core.roles import Update
from fedexp.core.seeding import derive_rng
from fedexp.core.weights import Weights
from fedexp.federation.faults import (
    DroppedOutError,
    byzantine_clients,
    collude,
    drop_out,
    faulty_examples,
    faulty_weights,
    steps_of,
)


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
    flipping, noisy = (config(clients=_faulty(kind)) for kind in ("label_flip", "gaussian"))
    flipped = faulty_examples(flipping, flipping.clients.byzantine.attack(), examples, 10, 3)
    assert (flipped.targets == 9 - examples.targets).all()
    assert flipped.inputs is examples.inputs
    assert faulty_examples(noisy, noisy.clients.byzantine.attack(), examples, 10, 3) is examples


def _sent(kind: str, before: Weights, after: Weights, server_round: int, client: int) -> Weights:
    experiment = config(clients=_faulty(kind))
    attack = experiment.clients.byzantine.attack()
    return faulty_weights(experiment, attack, before, after, server_round, client)


def test_what_faulty_clients_send() -> None:
    before = {"w": np.array([1.0, 2.0], np.float32), "n": np.array(3)}
    after = {"w": np.array([2.0, 0.0], np.float32), "n": np.array(5)}
    flipped = _sent("sign_flip", before, after, 1, 0)
    assert flipped["w"].tolist() == [-1.0, 6.0]  # 1 - 2 * 1, 2 - 2 * (-2)
    assert flipped["w"].dtype == np.float32
    assert flipped["n"] == 5
    assert _sent("label_flip", before, after, 1, 0) is after
    large = {"w": np.zeros(100_000, np.float32)}
    noise = _sent("gaussian", large, large, 1, 0)["w"]
    assert noise.std() == pytest.approx(2.0, rel=0.02)
    other = _sent("gaussian", large, large, 1, 1)["w"]
    assert (noise != other).any()
    later = _sent("gaussian", large, large, 2, 0)["w"]
    assert (noise != later).any()


def test_noise_is_the_draw_of_seed_round_and_client() -> None:
    before = {"w": np.array([1.0, 2.0], np.float32), "n": np.array(3)}
    # Client 0 of round 0 chose who is faulty, so that client k draws as k + 1.
    rng = derive_rng(config().seed, "byzantine", 4, 7 + 1)
    expected = (before["w"] + 2.0 * rng.standard_normal(2)).astype(np.float32)
    assert same_weights(_sent("gaussian", before, before, 4, 7), {**before, "w": expected})


# --- clients that collude -------------------------------------------------------------------------


def _colluding(scale: float = 1.5, fraction: float = 0.2) -> Config:
    return config(clients=_faulty("little_is_enough", scale, fraction))


def _all_updates(num: int = 10) -> list[Update]:
    """Return updates of which client k sends (k, 2)."""
    return [sent(k, float(k), 2.0, num_examples=k + 1, loss=float(k)) for k in range(num)]


MODEL = weights_of(0.0, 0.0)


def test_colluders_send_the_mean_less_some_deviations() -> None:
    experiment, updates = _colluding(), _all_updates()
    faulty = byzantine_clients(experiment)
    assert len(faulty) == 2
    found = collude(experiment, experiment.clients.byzantine.attack(), 1, MODEL, updates)
    # 0 .. 9: mean 4.5, variance (10^2 - 1) / 12 = 8.25; the second weight has no deviation.
    agreed = [float(np.float32(4.5 - 1.5 * np.sqrt(8.25))), 2.0]
    for before, after in zip(updates, found, strict=True):
        if before.client in faulty:
            assert values(after.weights) == agreed
            assert (after.num_examples, after.loss) == (before.num_examples, before.loss)
        else:
            assert after is before
    # What they had computed is left as it was.
    assert [values(update.weights)[0] for update in updates] == list(range(10))


def test_a_round_without_a_faulty_client_is_left_alone() -> None:
    experiment = _colluding()
    honest = [u for u in _all_updates() if u.client not in byzantine_clients(experiment)]
    assert collude(experiment, LittleIsEnough(), 1, MODEL, honest) is honest


def test_attacks_of_single_clients_do_not_collude() -> None:
    for kind in ("label_flip", "sign_flip", "gaussian"):
        experiment, updates = config(clients=_faulty(kind)), _all_updates()
        found = collude(experiment, experiment.clients.byzantine.attack(), 1, MODEL, updates)
        assert [id(update) for update in found] == [id(update) for update in updates]


def test_colluders_leave_integers_as_they_are() -> None:
    experiment = _colluding(fraction=0.9)
    model: Weights = {**weights_of(0.0), "n": np.array(3)}
    updates = [Update(k, 1, {**weights_of(float(k)), "n": np.array(5)}, 1) for k in range(10)]
    found = collude(experiment, experiment.clients.byzantine.attack(), 1, model, updates)
    assert all(update.weights["n"] == 5 for update in found)
    assert {update.weights["n"].dtype for update in found} == {np.dtype(np.int64)}
    assert [list(update.weights) for update in found] == [["w", "n"]] * 10


def test_colluders_alone_agree_among_themselves() -> None:
    # 2 and 6 of two faulty clients: mean 4, standard deviation 2, 4 - 1.5 * 2.
    experiment = _colluding()
    pair = [sent(k, w) for k, w in zip(byzantine_clients(experiment), (2.0, 6.0), strict=True)]
    found = collude(experiment, experiment.clients.byzantine.attack(), 1, weights_of(0.0), pair)
    assert [values(update.weights) for update in found] == [[1.0], [1.0]]


def test_a_share_of_clients_straggles() -> None:
    training = TrainingConfig(local_epochs=4, batch_size=10)
    late = config(clients=ClientsConfig(num=10, stragglers=0.3), training=training)
    drawn = [steps_of(late, k, client, 25) for k in range(1, 101) for client in range(10)]
    assert 0.25 < np.mean(np.array(drawn) < 12) < 0.35
