from __future__ import annotations

import math

import numpy as np
import pytest
from support.helpers import config, same_weights, tiny_data

from fedexp import attacks
from fedexp.attacks import Attack, Gaussian, LabelFlip, LittleIsEnough, SignFlip
from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.core.roles import Update, Updates
from fedexp.core.weights import Weights, copied
from fedexp.federation.faults import collude

BEFORE: Weights = {"w": np.array([1.0, 2.0], np.float32), "n": np.array(3)}
AFTER: Weights = {"w": np.array([2.0, 0.0], np.float32), "n": np.array(5)}


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _updates(*weights: Weights) -> Updates:
    return Updates([Update(k, 1, own, num_examples=10 + k) for k, own in enumerate(weights)])


def test_flipped_labels() -> None:
    examples = tiny_data().train
    before = examples.targets.copy()
    flipped = LabelFlip().examples(examples, 10, _rng())
    assert flipped.targets.tolist() == (9 - before).tolist()
    assert flipped.inputs is examples.inputs
    assert examples.targets.tolist() == before.tolist()
    assert LabelFlip().examples(examples, 12, _rng()).targets.tolist() == (11 - before).tolist()


def test_flipped_signs_by_hand() -> None:
    sent = SignFlip(scale=2.0).weights(BEFORE, AFTER, _rng())
    assert sent["w"].tolist() == [-1.0, 6.0]  # 1 - 2 * 1, 2 - 2 * (-2)
    assert sent["w"].dtype == np.float32
    assert sent["n"] == 5
    assert AFTER["w"].tolist() == [2.0, 0.0]
    assert list(sent) == list(AFTER)


def test_noise_takes_the_place_of_the_update() -> None:
    large = {"w": np.full(100_000, 3.0, np.float32), "n": np.array(4)}
    sent = Gaussian(scale=2.0).weights(large, {**large, "w": large["w"] + 7}, _rng())
    assert sent["w"].dtype == np.float32
    assert sent["n"] == 4
    assert sent["w"].mean() == pytest.approx(3.0, abs=0.03)
    assert sent["w"].std() == pytest.approx(2.0, rel=0.02)
    again, other = (Gaussian(scale=2.0).weights(large, large, _rng(seed)) for seed in (0, 1))
    assert same_weights(sent, again)
    assert (sent["w"] != other["w"]).any()


def test_noise_is_drawn_in_the_models_order() -> None:
    model = {"b": np.zeros(2, np.float32), "n": np.array(0), "a": np.zeros((2, 1), np.float32)}
    sent, rng = Gaussian(scale=3.0).weights(model, model, _rng()), _rng()
    first, second = 3.0 * rng.standard_normal(2), 3.0 * rng.standard_normal((2, 1))
    assert sent["b"].tolist() == first.astype(np.float32).tolist()
    assert sent["a"].tolist() == second.astype(np.float32).tolist()


def test_a_little_is_enough_by_hand() -> None:
    model = {"w": np.zeros(2, np.float32), "n": np.array(0)}
    updates = _updates(
        {"w": np.array([1, 2], np.float32), "n": np.array(4)},
        {"w": np.array([3, 2], np.float32), "n": np.array(6)},
        {"w": np.array([5, 8], np.float32), "n": np.array(8)},
    )
    sent = LittleIsEnough(scale=1.5).collude(model, updates, {1, 2, 7}, _rng())
    assert sorted(sent) == [1, 2], "client 7 takes no part in the round"
    # Means 3 and 4; squared deviations 4 + 0 + 4 and 4 + 4 + 16, over three.
    expected = [3 - 1.5 * math.sqrt(8 / 3), 4 - 1.5 * math.sqrt(8)]
    for weights in sent.values():
        assert list(weights) == ["w", "n"]
        assert weights["w"].tolist() == pytest.approx(expected)
        assert weights["w"].dtype == np.float32
        assert weights["n"].dtype == model["n"].dtype
        assert int(weights["n"]) in (4, 6, 8)
    assert [update.weights["w"].tolist() for update in updates] == [[1, 2], [3, 2], [5, 8]]


def test_among_equals_it_cannot_be_told_from_them() -> None:
    same = {"w": np.array([1.5, -2.0], np.float32)}
    sent = LittleIsEnough(scale=4.0).collude(same, _updates(same, same), {0}, _rng())
    assert same_weights(sent[0], same)


def test_only_faulty_clients_collude() -> None:
    clients = ClientsConfig(num=5, byzantine=ByzantineConfig(0.4, "little_is_enough", 2.0))
    experiment = config(clients=clients)
    updates = [
        Update(k, 3, {"w": np.array([float(k)], np.float32)}, num_examples=1) for k in range(5)
    ]
    model = {"w": np.zeros(1, np.float32)}
    agreed = collude(experiment, LittleIsEnough(scale=2.0), 3, model, updates)
    changed = [k for k in range(5) if agreed[k] is not updates[k]]
    assert len(changed) == 2
    assert [update.client for update in agreed] == list(range(5))
    for k in changed:
        assert agreed[k].weights["w"].tolist() == pytest.approx([2 - 2 * math.sqrt(2)])
        assert (agreed[k].round, agreed[k].num_examples) == (3, 1)
    absent = [update for update in updates if update.client not in changed]
    assert collude(experiment, LittleIsEnough(), 3, model, absent) is absent


@pytest.mark.parametrize("name", attacks.choices())
def test_an_attack_does_one_thing_and_is_honest_otherwise(name: str) -> None:
    attack, honest = attacks.get(name)(), Attack()
    examples, updates = tiny_data().train, _updates(BEFORE, AFTER)
    before = copied(BEFORE), copied(AFTER)
    acts = {
        "examples": attack.examples(examples, 10, _rng()) is not examples,
        "weights": attack.weights(BEFORE, AFTER, _rng()) is not AFTER,
        "collude": attack.collude(BEFORE, updates, {0}, _rng()) != {},
    }
    assert sum(acts.values()) == 1, acts
    assert same_weights(before[0], BEFORE)
    assert same_weights(before[1], AFTER)
    assert honest.examples(examples, 10, _rng()) is examples
    assert honest.weights(BEFORE, AFTER, _rng()) is AFTER
    assert honest.collude(BEFORE, updates, {0}, _rng()) == {}


def test_options_reach_the_attack() -> None:
    assert ByzantineConfig(0.2, "gaussian", 3.0).attack() == Gaussian(scale=3.0)
    assert ByzantineConfig(0.2, "sign_flip").attack() == SignFlip()
    with pytest.raises(TypeError):
        ByzantineConfig(0.2, "sign_flip", options={"angle": 1}).attack()
