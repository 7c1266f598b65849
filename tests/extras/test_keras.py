"""Models in Keras: torch's numbers within float error, and the same bits wherever clients run."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support.helpers import same_weights

from fedexp.config.composition import compose_config
from fedexp.config.training import TrainingConfig
from fedexp.core.options import ConfigError
from fedexp.core.roles import Order
from fedexp.core.weights import Weights
from fedexp.data.examples import Spec
from fedexp.federation.client import ClientNode
from fedexp.federation.dealing import federate
from fedexp.federation.job import ClientJob
from fedexp.models import Model
from fedexp.models.keras_mlp import KerasMlp
from fedexp.models.keras_model import KerasModel
from fedexp.models.mlp import Mlp
from fedexp.testing import DoesNotConform, conforms
from fedexp.testing.runs import same_everywhere, small

THEIRS = {"1.kernel": "1.weight", "1.bias": "1.bias", "3.kernel": "3.weight", "3.bias": "3.bias"}


def _after(model: Model, start: Weights, asked: dict[str, Any]) -> tuple[Weights, float | None]:
    training = TrainingConfig(local_steps=5, batch_size=8, learning_rate=0.05, weight_decay=0.01)
    node = ClientNode(small(model=model, training=training), lambda: federate(small()))
    job = ClientJob(node, 0, 1, Order(start), {}, node.data.train_examples([0]), 5)
    with node.trainer.turn(1, 0):
        job.send(job.train(**asked))
    reply = job.reply()
    assert reply.weights is not None
    return reply.weights, reply.loss


def _initial(model: Model) -> Weights:
    return ClientNode(small(model=model), lambda: federate(small())).trainer.initial()


@pytest.mark.parametrize("asked", [{}, {"steps": 1}, {"pull": 0.5, "steps": 3}])
def test_training_is_torchs_within_float_error(asked: dict[str, Any]) -> None:
    start = _initial(KerasMlp())
    assert set(start) == set(THEIRS)
    mine, my_loss = _after(KerasMlp(), start, asked)
    torchs, torchs_loss = _after(Mlp(), {THEIRS[n]: a.T for n, a in start.items()}, asked)
    assert my_loss == pytest.approx(torchs_loss, rel=1e-4)
    for name, array in mine.items():
        np.testing.assert_allclose(array.T, torchs[THEIRS[name]], rtol=1e-3, atol=1e-5)


def test_the_page_conforms() -> None:
    conforms(KerasMlp(hidden=[8], dropout=0.3), ("inline",))


def test_every_backend_gives_the_same_bits() -> None:
    same_everywhere(small(model=KerasMlp(hidden=[8], dropout=0.3)), ("inline", "ray", "flower"))


def test_dropout_drops_while_it_trains_and_pythons_generator_is_left_alone() -> None:
    before, start = random.getstate(), _initial(KerasMlp())
    assert random.getstate() == before
    plain, _ = _after(KerasMlp(), start, {})
    dropped, _ = _after(KerasMlp(dropout=0.5), start, {})
    again, _ = _after(KerasMlp(dropout=0.5), start, {})
    assert same_weights(dropped, again)
    assert not np.array_equal(dropped["1.kernel"], plain["1.kernel"])


@dataclass(frozen=True)
class Normalised(KerasModel):
    """Has a layer that keeps statistics."""

    name: str = "normalised"

    def layers(self, spec: Spec) -> Any:
        from keras import Sequential, layers

        return Sequential(
            [layers.Flatten(), layers.BatchNormalization(), layers.Dense(spec.outputs)]
        )


@dataclass(frozen=True)
class Frozen(KerasModel):
    """Has a layer that stays as it is drawn."""

    tasks = ("classification",)
    name: str = "frozen"

    def layers(self, spec: Spec) -> Any:
        from keras import Sequential, layers

        still = layers.Dense(8, trainable=False)
        return Sequential([layers.Flatten(), still, layers.Dense(spec.outputs)])


def test_what_is_frozen_stays_and_what_keeps_statistics_is_refused() -> None:
    start = _initial(Frozen())
    trained, _ = _after(Frozen(), start, {})
    moved = {name for name in start if not np.array_equal(trained[name], start[name])}
    assert moved == {"2.kernel", "2.bias"}
    with pytest.raises(DoesNotConform, match="use GroupNormalization or LayerNormalization"):
        conforms(Normalised(), ("inline",))


def test_another_backend_of_keras_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    with pytest.raises(ConfigError, match="KERAS_BACKEND must be jax or unset, got tensorflow"):
        compose_config(["model=keras_mlp"])
