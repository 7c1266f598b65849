"""Does a page keep to its contract? For tests of one's own, and before a run that uses code from outside.

    from fedexp.testing import conforms

    def test_mine() -> None:
        conforms(Mine())

Built-in pages pass the same suite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from fedexp import attacks, metrics
from fedexp.attacks import Attack
from fedexp.config.backend import FlowerBackend, InlineBackend, RayBackend
from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.config.schema import Config
from fedexp.config.training import TrainingConfig
from fedexp.core.registry import PluginError, located
from fedexp.core.weights import hash_weights
from fedexp.datasets import Dataset
from fedexp.federation.events import Ending, Listener, Measurement, RoundReport
from fedexp.metrics import Metric, Predictions
from fedexp.models import Model
from fedexp.models.mlp import Mlp
from fedexp.models.mobilenet_v3_small import MobilenetV3Small
from fedexp.partitions import Partition
from fedexp.partitions.base import make_partition
from fedexp.partitions.iid import Iid
from fedexp.strategies import Strategy

BACKENDS: dict[str, Any] = {
    "inline": InlineBackend(),
    "ray": RayBackend(workers=2),
    "flower": FlowerBackend(workers=2),
}


class DoesNotConform(PluginError):
    """A page that breaks its contract; the message says which part of it."""


def conforms(page: object, backends: Sequence[str] = ("inline", "ray")) -> None:
    """Try a page out, and raise an error unless it keeps to its contract.

    Args:
        page: An instance, such as ``Mine()``: of a strategy, dataset, model, partition, metric or attack.
        backends: Where runs of a strategy, a model or an attack must give the same bits: of ``inline``,
            ``ray`` and ``flower``.

    Raises:
        DoesNotConform: With a line that says what is wrong, and where.
        TypeError: If it is no page at all.
    """
    for kind, check in _CHECKS.items():
        if isinstance(page, kind):
            with _blaming(page):
                check(page, backends)
            return
    raise TypeError(f"{page!r} is neither {', '.join(kind.__name__ for kind in _CHECKS)}")


def try_out(config: Config) -> None:
    """Check quickly what a configuration uses of code from outside, before its run starts.

    Raises:
        DoesNotConform: With a line that says what is wrong, and where.
    """
    dataset, partition, model = config.dataset, config.partition, config.model
    if _is_outside(dataset):
        with _blaming(dataset):
            _check_dataset(dataset)
    if _is_outside(partition):
        with _blaming(partition):
            _check_partition(partition, config.clients.num, config.seed, dataset)
    if _is_outside(model):
        with _blaming(model):
            _check_model(model, dataset, config)
    if _is_outside(config.strategy):
        with _blaming(config.strategy):
            _check_sides(config.strategy, config)
    for name in config.measured:
        if not metrics.REGISTRY.is_built_in(name):
            metric = metrics.get(name)()
            with _blaming(metric):
                _check_metric(metric)


@contextmanager
def _blaming(page: Any) -> Iterator[None]:
    """Turn whatever a page's code raises into one line that names the page."""
    what = f"{type(page).__name__} ({page.name})"
    try:
        yield
    except DoesNotConform as error:
        raise DoesNotConform(f"{what}: {error}") from error
    except Exception as error:
        raise DoesNotConform(f"{what}: {located(type(page), error)}") from error


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DoesNotConform(otherwise)


def _is_outside(page: object) -> bool:
    return not type(page).__module__.startswith("fedexp.")


class _Recorder(Listener):
    """Keeps all that a run measured."""

    def __init__(self) -> None:
        self.measurements: list[Measurement] = []
        self.failures = 0

    def round(self, report: RoundReport) -> None:
        self.measurements += report.measurements
        self.failures += report.num_failures


def _run(config: Config) -> tuple[Ending, _Recorder]:
    """Run an experiment that leaves no folder."""
    from fedexp.experiment import Attempt

    recorder = _Recorder()
    return Attempt(config, recorder, verbose=False).complete(), recorder


def _small(**changes: Any) -> Config:
    """Return an experiment of few examples and steps, in this process."""
    small = Config(
        rounds=2,
        partition=Iid(samples_per_client=20),
        model=Mlp(hidden=[8]),
        clients=ClientsConfig(num=3, fraction_evaluate=1.0),
        training=TrainingConfig(local_steps=3, batch_size=8),
        backend=InlineBackend(),
    )
    return replace(small, **changes)


def _same_everywhere(config: Config, backends: Sequence[str]) -> Ending:
    """Run on every backend, and twice on the first; all must give the same bits."""
    first, told = _run(replace(config, backend=BACKENDS[backends[0]]))
    for name in backends:
        ending, again = _run(replace(config, backend=BACKENDS[name]))
        same = ending.summary["model_sha256"] == first.summary["model_sha256"]
        _require(same, f"backend={name} gives another model than backend={backends[0]}")
        _require(
            _rows(again) == _rows(told),
            f"backend={name} gives other numbers than backend={backends[0]}",
        )
    return first


def _rows(told: _Recorder) -> list[str]:
    return [repr(row) for row in told.measurements]


def _check_strategy_fully(strategy: Strategy, backends: Sequence[str]) -> None:
    """Same bits, dtypes kept, BatchNorm survived, failing clients survived."""
    clients = max(3, strategy.min_clients)
    config = _small(strategy=strategy, clients=ClientsConfig(clients, fraction_evaluate=1.0))
    _check_sides(strategy, config)
    _same_everywhere(config, backends)
    more = ClientsConfig(2 * clients + 2, fraction_train=1.0, dropout=0.2)
    ending = _same_everywhere(replace(config, clients=more, rounds=3), backends[:2])
    _require(ending.summary["rounds"] == 3, "a run in which clients drop out does not complete")
    if not strategy.measures_distances:
        _check_batchnorm(replace(config, model=MobilenetV3Small(), rounds=1))


def _check_batchnorm(config: Config) -> None:
    ending, _ = _run(config)
    assert ending.weights is not None
    counters = [name for name in ending.weights if name.endswith("num_batches_tracked")]
    kept = all(ending.weights[name].dtype == np.int64 for name in counters)
    _require(bool(counters) and kept, "BatchNorm's counters do not stay integers")
    variances = (a for name, a in ending.weights.items() if name.endswith("running_var"))
    _require(
        all((array >= 0).all() for array in variances),
        "BatchNorm's running variances become negative: set averages_buffers = True",
    )


def _check_sides(strategy: Strategy, config: Config) -> None:
    from fedexp.core.roles import Client, Server, Setup

    setup = Setup(config.clients.num, ("w",), frozenset(), config.training.rate)
    server, client = strategy.server(setup), strategy.client()
    _require(isinstance(server, Server), f"server() must return a Server, got {server!r}")
    _require(isinstance(client, Client), f"client() must return a Client, got {client!r}")


def _check_dataset_fully(dataset: Dataset, backends: Sequence[str]) -> None:
    """What :func:`_check_dataset` says, and a run."""
    _check_dataset(dataset)
    _same_everywhere(_small(dataset=dataset, partition=Iid()), backends[:1])


def _check_dataset(dataset: Dataset) -> None:
    """The same examples twice, of the shape that the page says, prepared to finite float32."""
    import torch

    from fedexp.data.loading import check

    dataset.ensure()
    (train, test), (again, _) = dataset.load(), dataset.load()
    check(f"dataset={dataset.name}", train, test)
    same = np.array_equal(train.inputs, again.inputs) and np.array_equal(
        train.targets, again.targets
    )
    _require(same, "load() returns other examples the second time")
    spec = dataset.spec
    for what, part, number in (("training", train, spec.num_train), ("test", test, spec.num_test)):
        found = (len(part), part.inputs.shape[1:], int(part.targets.max()) < spec.num_classes)
        _require(
            found == (number, spec.shape, True),
            f"the {what} examples are {len(part)} of shape {part.inputs.shape[1:]} with labels up to "
            f"{part.targets.max()}; facts says {number} of {spec.shape} with {spec.num_classes} classes",
        )
    batch = torch.from_numpy(train.inputs[:2].copy())
    before = batch.clone()
    varied = dataset.vary(batch, torch.Generator().manual_seed(0))
    prepared = dataset.prepare(varied)
    _require(torch.equal(batch, before), "prepare() or vary() writes to the batch it is given")
    _require(varied.shape == batch.shape, f"vary() must keep the shape {tuple(batch.shape)}")
    _require(
        prepared.dtype == torch.float32 and bool(torch.isfinite(prepared).all()),
        f"prepare() must return finite float32, got {prepared.dtype}",
    )


def _check_partition_fully(partition: Partition, backends: Sequence[str]) -> None:
    """Sound for several numbers of clients and seeds, and a run."""
    from fedexp.datasets.mnist5k import Mnist5k

    for num_clients in (1, 2, 5):
        config = _small(partition=partition, clients=ClientsConfig(num_clients))
        if list(partition.errors(config)):
            continue
        for seed in (0, 1):
            _check_partition(partition, num_clients, seed, Mnist5k())


def _check_partition(partition: Partition, num_clients: int, seed: int, dataset: Dataset) -> None:
    """Equal seeds give equal assignments; every other rule is :func:`make_partition`'s."""
    from fedexp.data.loading import load

    labels = load(dataset)[0].targets
    before = labels.copy()
    first = make_partition(partition, labels, num_clients, seed)
    again = make_partition(partition, labels, num_clients, seed)
    _require(first.sha256 == again.sha256, "deal() gives another assignment for the same seed")
    _require(np.array_equal(labels, before), "deal() writes to the labels it is given")


def _check_model_fully(model: Model, backends: Sequence[str]) -> None:
    """What :func:`_check_model` says, and the same bits everywhere."""
    from fedexp.datasets.mnist5k import Mnist5k

    _check_model(model, Mnist5k(), _small())
    _same_everywhere(_small(model=model), backends)


def _check_model(model: Model, dataset: Dataset, config: Config) -> None:
    """The contract of a model: built alike, filled, predicting and training as it must."""
    import torch

    from fedexp.data.loading import load
    from fedexp.federation.client import ClientNode
    from fedexp.training.network import build_network

    cpu, spec = torch.device("cpu"), dataset.spec
    networks = [build_network(model, spec, 0, cpu, dataset.prepare) for _ in range(2)]
    network, (initial, again) = networks[0], [n.weights() for n in networks]
    _require(
        hash_weights(initial) == hash_weights(again),
        "build() gives other weights for the same seed: draw them from torch's generator alone",
    )
    _require(
        bool(network.parameters),
        "no parameter requires gradients, so that there is nothing to train",
    )
    for name, array in initial.items():
        finite = not np.issubdtype(array.dtype, np.floating) or np.isfinite(array).all()
        _require(bool(finite), f"the initial {name} holds NaN or infinity")
    moved = {
        n: (a * 2).astype(a.dtype) if np.issubdtype(a.dtype, np.floating) else a
        for n, a in initial.items()
    }
    network.load(moved)
    _require(
        hash_weights(network.weights()) == hash_weights(moved),
        "the state dict is not the module's own memory: what is written to it gets lost",
    )
    network.load(initial)
    examples = load(dataset)[0].subset(np.arange(2))
    network.module.eval()
    with torch.no_grad():
        logits = network.module(dataset.prepare(torch.from_numpy(examples.inputs)))
    _require(
        tuple(logits.shape) == (2, spec.num_classes),
        f"logits must have shape (2, {spec.num_classes}) for two inputs, got {tuple(logits.shape)}",
    )
    _require(bool(torch.isfinite(logits).all()), "logits of the initial model are not finite")
    training = TrainingConfig(local_steps=3, batch_size=1, learning_rate=1e-3)
    node = ClientNode(
        replace(config, model=model, dataset=dataset, training=training, backend=InlineBackend()),
        lambda: _no_data(),
    )
    _check_training(node, initial, examples)


def _no_data() -> Any:
    raise RuntimeError("a model is tried without clients")


def _check_training(node: Any, initial: Any, examples: Any) -> None:
    """Three steps of one example each, twice, with another client's work in between."""
    from fedexp.core.roles import Order
    from fedexp.federation.client import ClientJob
    from fedexp.training.network import keyed_chance

    def trained(client: int) -> Any:
        job = ClientJob(node, client, 1, Order(initial), {}, examples, 3)
        with keyed_chance(0, 1, client, node.device):
            return job.train()

    first, _, again = trained(0), trained(1), trained(0)
    _require(
        hash_weights(first) == hash_weights(again),
        "a client's training depends on which clients trained before in the same process",
    )
    _require(
        any(not np.array_equal(first[name], initial[name]) for name in node.network.parameters),
        "three steps of SGD change no parameter",
    )


def _check_metric_fully(metric: Metric, backends: Sequence[str]) -> None:
    """What :func:`_check_metric` says."""
    _check_metric(metric)


def _check_metric(metric: Metric) -> None:
    """A finite number for any predictions, whatever their order."""
    rng = np.random.default_rng(0)
    odds = rng.dirichlet(np.ones(7), 50)
    targets = rng.integers(0, 7, 50)
    losses = -np.log(odds[np.arange(50), targets])
    found = Predictions(targets, odds.argmax(1), losses, odds)
    if not metric.needs_probabilities:
        found = Predictions(found.targets, found.labels, found.losses)
    order = rng.permutation(50)
    for what, some in (
        ("50 examples", found),
        ("one example", found.select(np.array([0]))),
        ("examples of one label", found.select(targets == targets[0])),
    ):
        value = metric.of(some)
        _require(
            isinstance(value, float) and bool(np.isfinite(value)),
            f"of() must return a finite float for {what}, got {value!r}",
        )
    close = np.isclose(metric.of(found), metric.of(found.select(order)))
    _require(bool(close), "of() depends on the order of the examples")


def _check_attack_fully(attack: Attack, backends: Sequence[str]) -> None:
    """The same bits everywhere; what it sends is either taken in or refused, and the run goes on."""
    known = attack.name in attacks.choices()
    if not known:
        attacks.register(type(attack))
    try:
        faulty = ByzantineConfig(fraction=0.4, kind=attack.name, scale=attack.scale)
        clients = ClientsConfig(num=5, byzantine=faulty)
        _same_everywhere(_small(clients=clients), backends)
    finally:
        if not known:
            attacks.REGISTRY.forget(attack.name)


_CHECKS: dict[type, Callable[[Any, Sequence[str]], None]] = {
    Strategy: _check_strategy_fully,
    Dataset: _check_dataset_fully,
    Model: _check_model_fully,
    Partition: _check_partition_fully,
    Metric: _check_metric_fully,
    Attack: _check_attack_fully,
}
