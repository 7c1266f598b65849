from __future__ import annotations

import numpy as np
import pytest
import torch

from fedexp.config_data import DATASET_SPECS, MlpModel
from fedexp.models import build_model, get_weights, hash_weights, initial_weights, set_weights

SPEC = DATASET_SPECS["mnist5k"]


def test_the_mlp_has_the_lessons_layers() -> None:
    weights = initial_weights(MlpModel(), SPEC, seed=0)
    shapes = [array.shape for array in weights.values()]
    assert shapes == [(128, 784), (128,), (10, 128), (10,)]
    assert sum(array.size for array in weights.values()) == 784 * 128 + 128 + 128 * 10 + 10
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}


def test_the_mlp_computes_what_it_says() -> None:
    model = build_model(MlpModel(hidden=[3]), SPEC)
    weights = get_weights(model)
    first, bias, second, last = weights
    weights[first] = np.zeros((3, 784), dtype=np.float32)
    weights[first][:, 0] = [1, -1, 2]
    weights[bias] = np.array([0, 0, -1], dtype=np.float32)
    weights[second] = np.ones((10, 3), dtype=np.float32)
    weights[last] = np.arange(10, dtype=np.float32)
    set_weights(model, weights)
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 0, 0] = 2.0
    # Hidden: relu(2), relu(-2), relu(4 - 1); their sum is 5.
    assert model(image).tolist() == [[5.0 + k for k in range(10)]]


def test_initial_weights_depend_on_the_seed_alone() -> None:
    before, numpy_before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    one, again, other = (hash_weights(initial_weights(MlpModel(), SPEC, s)) for s in (0, 0, 1))
    assert one == again != other
    assert torch.equal(torch.get_rng_state(), before)
    assert repr(np.random.get_state()) == numpy_before  # noqa: NPY002


def test_weights_make_the_round_trip() -> None:
    weights = initial_weights(MlpModel(hidden=[4]), SPEC, seed=3)
    for array in weights.values():
        array.flags.writeable = False  # as they come out of a message
    model = build_model(MlpModel(hidden=[4]), SPEC)
    set_weights(model, weights)
    assert hash_weights(get_weights(model)) == hash_weights(weights)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert weights["1.weight"].any(), "the model must own a copy"


def test_weights_that_do_not_fit_are_refused() -> None:
    model = build_model(MlpModel(), SPEC)
    weights = get_weights(model)
    with pytest.raises(ValueError, match="do not fit"):
        set_weights(model, {"other": weights["1.weight"]})
    with pytest.raises(ValueError, match=r"1.weight has shape \(2,\)"):
        set_weights(model, {**weights, "1.weight": np.zeros(2, dtype=np.float32)})


def test_the_hash_sees_every_bit_name_and_dtype() -> None:
    array = np.arange(4, dtype=np.float32)
    flipped = np.frombuffer(array.tobytes()[:-1] + b"\x41", np.float32)
    hashes = {
        hash_weights({"w": array}),
        hash_weights({"w": flipped}),
        hash_weights({"v": array}),
        hash_weights({"w": array.astype(np.float64)}),
        hash_weights({"w": array.reshape(2, 2)}),
    }
    assert len(hashes) == 5
    assert hash_weights({"w": array.copy()}) in hashes
