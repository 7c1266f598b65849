from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch

from fedexp.config.clients import ClientsConfig
from fedexp.config.schema import GROUPS, Config
from fedexp.config.training import TrainingConfig
from fedexp.config.validation import validate
from fedexp.data.examples import Spec
from fedexp.datasets import Dataset, ImageDataset
from fedexp.datasets.cifar10 import Cifar10
from fedexp.datasets.cifar100 import Cifar100
from fedexp.datasets.emnist import Emnist
from fedexp.datasets.mnist5k import Mnist5k
from fedexp.datasets.svhn import Svhn
from fedexp.models.cnn import Cnn
from fedexp.models.lenet5 import Lenet5
from fedexp.models.mlp import Mlp
from fedexp.models.mobilenet_v3_small import MobilenetV3Small
from fedexp.models.resnet18 import Resnet18
from fedexp.partitions.classes import Classes
from fedexp.partitions.dirichlet import Dirichlet
from fedexp.partitions.exclude import Exclude
from fedexp.partitions.iid import Iid
from fedexp.partitions.quantity import Quantity
from fedexp.partitions.shards import Shards
from fedexp.strategies.local_only import LocalOnly


def test_the_defaults_are_sound() -> None:
    assert validate(Config()) == []


def test_every_mistake_is_named_at_once() -> None:
    config = Config(
        seed=-1,
        rounds=0,
        clients=ClientsConfig(num=0, fraction_train=0.0, fraction_evaluate=1.5),
        training=TrainingConfig(learning_rate=float("nan"), momentum=1.0, optimizer="sdg"),
    )
    assert validate(config) == [
        "seed must be >= 0, got -1",
        "rounds must be >= 1, got 0",
        "clients.num must be >= 1, got 0",
        "clients.fraction_train must be > 0, got 0.0",
        "clients.fraction_evaluate must be <= 1, got 1.5",
        "training.optimizer must be one of sgd, adam, adamw, got 'sdg'",
        "training.learning_rate must be a finite number, got nan",
        "training.momentum must be < 1, got 1.0",
    ]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(name="a/b"), "name must be a word without slashes"),
        (Config(name=".."), "name must be"),  # its folder would lie outside results/
        (Config(dataset=Dataset("mnits")), "dataset.name must be one of breast_cancer, churn"),
        (Config(clients=ClientsConfig(num=4001)), "clients.num must be <= 4000"),
        (Config(model=Mlp(hidden=[3, 0])), "model.hidden must hold widths >= 1, got [3, 0]"),
        (
            Config(model=Resnet18(groups=3)),
            "model.groups must divide 64, resnet18's narrowest layer, got 3",
        ),
        (
            Config(dataset=Emnist(split="letter")),
            "dataset.split must be one of balanced, byclass, bymerge, digits, letters, mnist, got "
            "'letter'",
        ),
        (Config(dataset=Dataset("cifar10")), "choose it by dataset=cifar10"),
        (
            Config(partition=Iid(samples_per_client=2000)),
            "partition.samples_per_client must be <= 1333 for clients.num=3",
        ),
        (
            Config(partition=Iid(samples_per_client=1000), clients=ClientsConfig(num=100)),
            "partition.samples_per_client must be <= 40 for clients.num=100 on mnist5k (4000 training "
            "examples), got 1000",
        ),
        (
            Config(partition=Dirichlet(min_size=401), clients=ClientsConfig(num=10)),
            "partition.min_size must be <= 400 for clients.num=10 on mnist5k",
        ),
        (
            Config(partition=Quantity(min_size=1334)),
            "partition.min_size must be <= 1333 for clients.num=3",
        ),
        (
            Config(partition=Shards(), clients=ClientsConfig(num=2001)),
            "partition.shards_per_client must be <= 1 for clients.num=2001",
        ),
        (
            Config(partition=Classes(classes_per_client=11)),
            "partition.classes_per_client must be <= 10, the labels of dataset=mnist5k, got 11",
        ),
        (
            # One line, not a second one about a minimum that no number of images could meet.
            Config(partition=Dirichlet(), clients=ClientsConfig(num=4001)),
            "clients.num must be <= 4000",
        ),
        (Config(partition=Dirichlet(alpha=0)), "partition.alpha must be > 0, got 0"),
        (Config(mode="show"), "mode must be one of train, partition, got 'show'"),
        (
            Config(partition=Exclude(exclude=[[1]])),
            "clients.num=3, got 1 lists",
        ),
        (
            Config(partition=Exclude(exclude=[[1], [10], []])),
            "partition.exclude[1] must hold labels from 0 to 9, got [10]",
        ),
        (
            Config(partition=Exclude(exclude=[[], [], list(range(10))])),
            "partition.exclude[2] leaves the client without a single label",
        ),
        (
            # random_split's generator takes 32 bits.
            Config(partition=Exclude(seed=2**32, exclude=[[], [], []])),
            "partition.seed must be < 4294967296",
        ),
    ],
)
def test_rules_between_options(config: Config, message: str) -> None:
    (line,) = validate(config)
    assert message in line


def test_isolated_clients_may_have_rounds_of_their_own() -> None:
    config = Config(rounds=3, isolated_rounds=1)
    assert config.num_rounds == 3
    assert dataclasses.replace(config, strategy=LocalOnly()).num_rounds == 1
    assert Config(rounds=3, strategy=LocalOnly()).num_rounds == 3


def test_every_schema_is_frozen() -> None:
    pages = [page for registry in GROUPS.values() for page in registry.pages().values()]
    for entry in (Config, ClientsConfig, TrainingConfig, *pages):
        assert entry.__dataclass_params__.frozen  # type: ignore[attr-defined]


MATHS = [
    *("config.schema", "config.validation", "core.seeding", "core.roles", "core.statistics"),
    *("data.assignment", "data.federated", "data.matched_test", "partitions", "models"),
    *("partitions.feature_noise", "strategies", "attacks", "metrics", "training.network"),
    *("training.loop", "federation.faults"),
]


@pytest.mark.slow
def test_the_maths_imports_no_framework() -> None:
    code = (
        "import importlib, sys\n"
        f"for name in {MATHS!r}:\n"
        "    importlib.import_module(f'fedexp.{name}')\n"
        "    found = [m for m in ('flwr', 'ray', 'hydra', 'wandb') if m in sys.modules]\n"
        "    assert not found, (name, found)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")


def test_images_too_small_for_a_model_are_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_size(height: int, width: int) -> Spec:
        return dataclasses.replace(Mnist5k().spec, shape=(1, height, width))

    monkeypatch.setattr(Mnist5k, "facts", of_size(28, 15))
    assert validate(Config(model=Lenet5())) == [
        "model=lenet5 needs images of at least 16x16 pixels, dataset=mnist5k has 28x15; these fit: "
        "model=cnn, jax_mlp, keras_mlp, logistic, mlp, resnet18, sklearn_sgd, two_nn"
    ]
    (line,) = validate(Config(model=Cnn(padding=0)))
    assert line.startswith("model.padding=0 needs images of at least 16x16 pixels")
    assert validate(Config(model=Cnn(padding=1))) == []
    monkeypatch.setattr(Mnist5k, "facts", of_size(17, 17))
    assert validate(Config(model=MobilenetV3Small())) == []


def test_models_are_kept_in_rounds_in_which_they_are_made() -> None:
    (line,) = validate(Config(save_every=5, evaluate_every=2))
    assert line.startswith("save_every must be a multiple of evaluate_every=2")
    assert validate(Config(save_every=6, evaluate_every=3)) == []


def test_a_dataset_knows_its_classes_before_it_is_read() -> None:
    found = GROUPS["dataset"].pages()
    pages = {name: page() for name, page in found.items() if page.kind == "image"}
    counts = {name: page.spec.num_classes for name, page in pages.items()}
    assert counts == {**dict.fromkeys(counts, 10), "cifar100": 100, "emnist": 47}
    splits = ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")
    letters = [Emnist(split=split) for split in splits]
    assert [page.spec.num_classes for page in letters] == [47, 62, 47, 10, 26, 10]
    for page in (*letters, *pages.values()):
        assert len(set(page.spec.classes)) == page.spec.num_classes
        assert isinstance(page, ImageDataset)
        assert len(page.mean) == len(page.std) == page.spec.shape[0]


def test_photographs_are_augmented_unless_told_otherwise() -> None:
    def varied(dataset: Dataset) -> bool:
        batch = torch.arange(8 * 3 * 32 * 32).reshape(8, 3, 32, 32)
        return not torch.equal(dataset.vary(batch, torch.Generator().manual_seed(0)), batch)

    assert varied(Cifar10())
    assert varied(Cifar100())
    assert not varied(Cifar100(augment=False))
    assert not varied(Svhn())
