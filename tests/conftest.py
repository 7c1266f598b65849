from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from support.helpers import TWO_WORKERS

from fedexp.backends.ray_session import start_ray
from fedexp.config.composition import compose_config
from fedexp.core import forked, garbage
from fedexp.experiment import run_experiment
from fedexp.federation.events import RunInfo

forked.has_trained = (
    True  # what tests replace here is not replaced in a fork that an earlier one made
)

gc.disable()  # until all tests are collected: hardly anything that this makes is garbage


def pytest_collection_finish() -> None:
    """Leave what imports and tests are made of out of every later look for garbage, as a sweep does.

    Runs and some of Flower's strategies look for it often; this would take them a second each time.
    """
    gc.enable()
    garbage.settle()


@pytest.fixture(scope="module", autouse=True)
def _settled() -> None:
    """Leave out what the tests of other files have left, too."""
    gc.collect()
    gc.freeze()


BUDGET = ("training.local_epochs=1", "rounds=2")


@pytest.fixture(scope="session", autouse=True)
def _ray_ends() -> Iterator[None]:
    yield
    ray.shutdown()


@pytest.fixture
def two_workers() -> None:
    """Start Ray, or keep it: starting the session that runs already costs nothing."""
    start_ray(TWO_WORKERS)


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function from overrides to the folder of a run of two short rounds, made once."""
    folders: dict[tuple[str, ...], Path] = {}

    def run(*overrides: str) -> Path:
        if overrides not in folders:
            folders[overrides] = tmp_path_factory.mktemp("run")
            experiment = compose_config([*BUDGET, *overrides])
            run_experiment(RunInfo(experiment, folders[overrides]))
        return folders[overrides]

    return run


@pytest.fixture
def mnist_root() -> Path:
    """Return the folder of all of MNIST, where there is one."""
    return _data_root("MNIST")


@pytest.fixture
def fashion_root() -> Path:
    """Return the folder of all of Fashion-MNIST, where there is one."""
    return _data_root("FashionMNIST")


def _data_root(dataset: str) -> Path:
    named = os.environ.get("FEDEXP_DATA")
    root = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not (root / dataset / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip(f"needs all of {dataset}: name its folder in FEDEXP_DATA")
    return root
