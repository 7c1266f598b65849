from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from fedexp import models
from fedexp.config.schema import GROUPS
from fedexp.config.training import TrainingConfig
from fedexp.core.weights import Weights, hash_weights
from fedexp.data.examples import Examples, Spec
from fedexp.datasets import Dataset, ImageDataset
from fedexp.datasets.cifar10 import Cifar10
from fedexp.datasets.cifar100 import Cifar100
from fedexp.datasets.mnist5k import Mnist5k
from fedexp.models import Model
from fedexp.models.cnn import Cnn
from fedexp.models.lenet5 import Lenet5
from fedexp.models.logistic import Logistic
from fedexp.models.mlp import Mlp
from fedexp.models.mobilenet_v3_small import MobilenetV3Small
from fedexp.models.resnet18 import Resnet18
from fedexp.models.two_nn import TwoNn
from fedexp.testing.tiny import tiny_for
from fedexp.training.device import limited_threads
from fedexp.training.loop import Work, train
from fedexp.training.network import Network, build_network

CPU = torch.device("cpu")
DIGITS, CIFAR10, CIFAR100 = Mnist5k(), Cifar10(augment=False), Cifar100(augment=False)
PAGES = [
    page for name, page in models.REGISTRY.pages().items() if models.REGISTRY.is_built_in(name)
]
EVERY = [page() for page in PAGES if page.framework == Model.framework and not page.extra]
# The others are tried by test_other_tasks.py and by the conformance suite.
ALL = [page for page in EVERY if page.takes("image", "classification")]


def _network(model: Model, dataset: Dataset = DIGITS, seed: int = 0) -> Network:
    return build_network(model, dataset.spec, seed, CPU, dataset.prepare)


def _initial(model: Model, seed: int = 0) -> Weights:
    return _network(model, seed=seed).weights()


def test_the_mlp_has_the_lessons_layers() -> None:
    weights = _initial(Mlp())
    shapes = [array.shape for array in weights.values()]
    assert shapes == [(128, 784), (128,), (10, 128), (10,)]
    assert sum(array.size for array in weights.values()) == 784 * 128 + 128 + 128 * 10 + 10
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}


def test_resnet18_has_groups_where_torchvision_has_batches() -> None:
    model = _network(Resnet18(groups=8), CIFAR10).module
    norms = [module for module in model.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert [norm.num_groups for norm in norms] == [8] * 20  # 17 convolutions and 3 shortcuts
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


def test_the_mlp_computes_what_it_says() -> None:
    network = _network(Mlp(hidden=[3]))
    weights = network.weights()
    first, bias, second, last = weights
    weights[first] = np.zeros((3, 784), dtype=np.float32)
    weights[first][:, 0] = [1, -1, 2]
    weights[bias] = np.array([0, 0, -1], dtype=np.float32)
    weights[second] = np.ones((10, 3), dtype=np.float32)
    weights[last] = np.arange(10, dtype=np.float32)
    network.load(weights)
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 0, 0] = 2.0
    # Hidden: relu(2), relu(-2), relu(4 - 1); their sum is 5.
    assert network.module(image).tolist() == [[5.0 + k for k in range(10)]]


def test_initial_weights_depend_on_the_seed_alone() -> None:
    before, numpy_before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    one, again, other = (hash_weights(_initial(Mlp(), s)) for s in (0, 0, 1))
    assert one == again != other
    assert torch.equal(torch.get_rng_state(), before)
    assert repr(np.random.get_state()) == numpy_before  # noqa: NPY002


def test_building_a_network_seeds_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    # It is built within a client's first round, whose own seed a GPU would lose.
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    _network(Mlp())
    assert seeds == []


def test_weights_make_the_round_trip() -> None:
    weights = _initial(Mlp(hidden=[4]), seed=3)
    for array in weights.values():
        array.flags.writeable = False  # as they come out of a message
    network = _network(Mlp(hidden=[4]))
    network.load(weights)
    assert hash_weights(network.weights()) == hash_weights(weights)
    with torch.no_grad():
        for parameter in network.module.parameters():
            parameter.zero_()
    assert weights["1.weight"].any(), "the model must own a copy"


def test_weights_that_do_not_fit_are_refused() -> None:
    network = _network(Mlp())
    weights = network.weights()
    with pytest.raises(ValueError, match="do not fit"):
        network.load({"other": weights["1.weight"]})
    with pytest.raises(ValueError, match=r"1.weight has shape \(2,\)"):
        network.load({**weights, "1.weight": np.zeros(2, dtype=np.float32)})


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


@pytest.mark.parametrize(
    ("config", "dataset", "count"),
    [
        (Mlp(), DIGITS, 101_770),
        (Logistic(), DIGITS, 7_850),
        (Logistic(), CIFAR10, 3 * 32 * 32 * 10 + 10),
        (TwoNn(), DIGITS, 199_210),  # McMahan et al., section 3
        (Cnn(), DIGITS, 1_663_370),  # McMahan et al., section 3
        (Cnn(padding=0), DIGITS, 582_026),  # 832 + 51,264 + 1,024 * 512 + 512 + 5,130
        (Lenet5(), DIGITS, 156 + 2_416 + (256 * 120 + 120) + (120 * 84 + 84) + 850),
        (Lenet5(), CIFAR10, 62_006),
        (Lenet5(), CIFAR100, 62_006 + 90 * 85),
        # torchvision's 11,689,512 with 1,000 classes and a 7x7 stem of 9,408 weights.
        (Resnet18(), CIFAR10, 11_689_512 - 990 * 513 - 9_408 + 64 * 3 * 9),
        (Resnet18(groups=32), DIGITS, 11_173_962 - 64 * 2 * 9),
        (Resnet18(), CIFAR100, 11_173_962 + 90 * 513),
        # torchvision's 2,542,856 with 1,000 classes.
        (MobilenetV3Small(), CIFAR10, 2_542_856 - 990 * 1_025),
        (MobilenetV3Small(), DIGITS, 1_528_106 - 16 * 2 * 9),
        (MobilenetV3Small(), CIFAR100, 1_528_106 + 90 * 1_025),
    ],
)
def test_the_number_of_parameters(config: Model, dataset: Dataset, count: int) -> None:
    model = _network(config, dataset).module
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_every_model_can_be_chosen() -> None:
    assert GROUPS["model"] is models.REGISTRY
    files = {path.stem for path in Path(models.__file__).parent.glob("*.py")}
    helpers = {
        "__init__",
        "base",
        "hugging_face",
        "jax_model",
        "keras_model",
        "layers",
        "sequences",
    }
    assert {page.name for page in PAGES} == files - helpers


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.name)
def test_a_model_says_whether_it_has_buffers(config: Model) -> None:
    assert config.has_buffers == bool(_network(config).buffers)


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.name)
def test_every_state_makes_the_round_trip(config: Model) -> None:
    network = _network(config)
    weights = network.weights()
    assert hash_weights(weights) == hash_weights(_initial(config))
    for k, array in enumerate(weights.values()):
        if array.dtype == np.int64:
            array[...] = 2**53 + 1 + k  # no float64 holds that
    network.load(weights)
    found = network.weights()
    assert hash_weights(found) == hash_weights(weights)
    assert {name: a.dtype for name, a in found.items()} == {n: a.dtype for n, a in weights.items()}
    counters = {name for name, array in found.items() if array.dtype != np.float32}
    assert all(found[name].shape == () and found[name].dtype == np.int64 for name in counters)
    assert bool(counters) == config.has_buffers
    assert counters <= network.buffers


def _batch(spec: Spec, count: int) -> Examples:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *spec.shape), dtype=np.uint8)
    return Examples(images, rng.integers(0, spec.num_classes, count))


def _train(
    network: Network, examples: Examples, dataset: Dataset, config: TrainingConfig, steps: int
) -> float:
    generator, work = torch.Generator().manual_seed(1), Work(steps, 0.01)
    return train(network, network.parameters, examples, dataset, config, work, generator, CPU)


@pytest.mark.parametrize(
    "dataset", [DIGITS, pytest.param(CIFAR100, marks=pytest.mark.slow)], ids=["grey", "colour"]
)
@pytest.mark.parametrize("config", ALL, ids=lambda config: config.name)
def test_a_round_of_training_moves_every_layer_by_the_seed_alone(
    config: Model, dataset: Dataset
) -> None:
    # Five images in batches of two: the last batch is a single image, which BatchNorm must stand.
    examples, training = _batch(dataset.spec, 5), TrainingConfig(local_epochs=1, batch_size=2)
    before = torch.get_rng_state()
    network = _network(config, dataset)
    start, hashes = network.weights(), []
    with limited_threads(1):
        for again in (network, _network(config, dataset)):
            again.load(start)
            assert 0 < _train(again, examples, dataset, training, 3) < 20
            hashes.append(hash_weights(again.weights()))
    assert hashes[0] == hashes[1]
    assert torch.equal(torch.get_rng_state(), before)
    trained, model = network.weights(), network.module
    assert all((trained[name] != array).any() for name, array in start.items())
    model.eval()
    assert model(torch.zeros(2, *dataset.spec.shape)).shape == (2, dataset.spec.num_classes)


@dataclass(frozen=True)
class Square(ImageDataset):
    """Grey images of any size."""

    name: str = "square"
    side: int = 1

    @property
    def spec(self) -> Spec:
        return Spec((1, self.side, self.side), ("a", "b"), 1, 1)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("config", ALL, ids=lambda config: config.name)
def test_the_smallest_image_is_the_smallest(config: Model) -> None:
    def learns(side: int) -> None:
        dataset = Square(side=side)
        examples = _batch(dataset.spec, 1)
        _train(_network(config, dataset), examples, dataset, TrainingConfig(), 1)

    learns(config.min_side)
    if config.min_side > 1:
        with pytest.raises((RuntimeError, ValueError)):
            learns(config.min_side - 1)


@pytest.mark.parametrize("page", EVERY, ids=lambda page: page.name)
def test_the_head_is_the_last_layer_and_pages_say_whether_they_normalise(page: Model) -> None:
    spec = tiny_for(page)[0].spec
    layers = Network(page.build(spec), torch.device("cpu")).layers
    last = layers.parameters[-1].rpartition(".")[0]
    assert {n for n in layers.names if n.rpartition(".")[0] == last} == layers.head
    assert len(layers.head) < len(layers.names) or page.name in ("linear", "logistic")
    assert bool(layers.norms) == page.normalises
