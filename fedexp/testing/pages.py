"""The contracts of all pages but models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import numpy as np

from fedexp import attacks, tasks
from fedexp.attacks import Attack
from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.config.schema import Config
from fedexp.core.roles import Client, Server, Setup, Update, Updates
from fedexp.data.examples import Examples
from fedexp.data.loading import check, load, spec_problem
from fedexp.data.population import Population as Drawing
from fedexp.datasets import Dataset
from fedexp.datasets.synthetic_devices import SyntheticDevices
from fedexp.metrics import Metric, Predictions
from fedexp.models import Model
from fedexp.models.gru import Gru
from fedexp.models.mlp import Mlp
from fedexp.models.mobilenet_v3_small import MobilenetV3Small
from fedexp.partitions import Partition
from fedexp.partitions.iid import Iid
from fedexp.partitions.population import Population
from fedexp.strategies import Strategy
from fedexp.tasks import TOKENS
from fedexp.testing.runs import require, resumes_alike, run, same_everywhere, small
from fedexp.testing.tiny import TinyImages, TinyNumbers, TinyText

_SMALL_MODELS: tuple[Model, ...] = (Mlp(hidden=[8]), Gru(embedding=4, hidden=8))


def strategy_conforms(strategy: Strategy, backends: Sequence[str]) -> None:
    """Same bits, dtypes kept, BatchNorm and failing clients survived, resumed to the bit."""
    clients = max(3, strategy.min_clients)
    config = small(strategy=strategy, clients=ClientsConfig(clients, fraction_evaluate=1.0))
    check_sides(strategy, config)
    same_everywhere(config, backends, without_failures=True)
    more = ClientsConfig(2 * clients + 2, fraction_train=1.0, dropout=0.2)
    ending = same_everywhere(replace(config, clients=more, rounds=3), backends[:2])
    require(ending.summary["rounds"] == 3, "a run in which clients drop out does not complete")
    resumes_alike(replace(config, rounds=3))
    if not strategy.measures_distances:
        # Nobody evaluates on clients: a negative variance is NaN there, which ends the run.
        one = replace(config, model=MobilenetV3Small(), rounds=1, clients=ClientsConfig(clients))
        _check_batchnorm(one)


def _check_batchnorm(config: Config) -> None:
    ending, _ = run(config)
    assert ending.weights is not None
    counters = [name for name in ending.weights if name.endswith("num_batches_tracked")]
    kept = all(ending.weights[name].dtype == np.int64 for name in counters)
    require(bool(counters) and kept, "BatchNorm's counters do not stay integers")
    variances = (a for name, a in ending.weights.items() if name.endswith("running_var"))
    require(
        all((array >= 0).all() for array in variances),
        "BatchNorm's running variances become negative: set averages_buffers = True",
    )


def check_sides(strategy: Strategy, config: Config) -> None:
    """Require that both sides can be made, and are what they must be."""
    setup = Setup(config.clients.num, ("w",), frozenset(), config.training.rate)
    server, client = strategy.server(setup), strategy.client()
    require(isinstance(server, Server), f"server() must return a Server, got {server!r}")
    require(isinstance(client, Client), f"client() must return a Client, got {client!r}")


def dataset_conforms(dataset: Dataset, backends: Sequence[str]) -> None:
    """What :func:`check_dataset` says, and a run where a model of fedexp's takes what it has."""
    check_dataset(dataset)
    partition = Iid() if dataset.population is None else Population()
    for model in _SMALL_MODELS:
        if model.takes(dataset.kind, dataset.task):
            same_everywhere(small(dataset=dataset, partition=partition, model=model), backends[:1])
            return


def check_dataset(dataset: Dataset) -> None:
    """The same examples twice, of the shape that the page says, prepared as its kind must be."""
    import torch

    dataset.ensure()
    if dataset.population is not None:
        _check_population(dataset.population)
    (train, test), again = dataset.load(), dataset.load()
    check(dataset, train, test)
    same = all(
        np.array_equal(one.inputs, other.inputs) and np.array_equal(one.targets, other.targets)
        for one, other in zip((train, test), again, strict=True)
    )
    require(same, "load() returns other examples the second time")
    spec = dataset.spec
    for what, part, number in (("training", train, spec.num_train), ("test", test, spec.num_test)):
        require(
            dataset.population is not None or len(part) == number,
            f"there are {len(part)} {what} examples; facts says {number}",
        )
        problem = spec_problem(dataset, spec, part)
        require(problem is None, f"the {what} {problem}")
    batch = torch.from_numpy(train.inputs[:2].copy())
    before = batch.clone()
    varied = dataset.vary(batch, torch.Generator().manual_seed(0))
    prepared = dataset.prepare(varied)
    dataset.prepare(batch)  # as test examples are
    require(torch.equal(batch, before), "prepare() or vary() writes to the batch it is given")
    require(varied.shape == batch.shape, f"vary() must keep the shape {tuple(batch.shape)}")
    wanted = torch.int64 if dataset.kind == TOKENS else torch.float32
    require(
        prepared.dtype == wanted and bool(torch.isfinite(prepared).all()),
        f"prepare() must return finite {str(wanted).removeprefix('torch.')}, got {prepared.dtype}",
    )


def _check_population(population: Drawing) -> None:
    """A client's number decides what is drawn for it, and its sizes are those of that."""
    for client in (0, 10**8):
        drawn, sizes = population.draw(client), population.sizes(client)
        found = len(drawn[0]), len(drawn[1])
        require(found == sizes, f"sizes({client}) is {sizes}; draw({client}) has {found}")
        require(sizes[0] > 0, f"draw({client}) has no training example; one at least")
        population.draw(client + 1)
        same = all(
            np.array_equal(one.inputs, other.inputs) and np.array_equal(one.targets, other.targets)
            for one, other in zip(drawn, population.draw(client), strict=True)
        )
        require(same, f"draw({client}) returns other examples the second time")


def partition_conforms(partition: Partition, backends: Sequence[str]) -> None:
    """Sound for several numbers of clients and seeds, and a run."""
    dataset = SyntheticDevices(samples_per_client=20) if partition.population else TinyImages()
    for num_clients in (1, 2, 5):
        clients = ClientsConfig(num_clients)
        config = small(dataset=dataset, partition=partition, clients=clients)
        if list(partition.errors(config)):
            continue
        for seed in (0, 1):
            check_partition(partition, num_clients, seed, dataset)
        same_everywhere(config, backends[:1])


def check_partition(partition: Partition, num_clients: int, seed: int, dataset: Dataset) -> None:
    """Equal seeds give equal assignments; every other rule is :meth:`Partition.hold`'s."""
    if partition.population:
        first, again = (list(partition.listed(num_clients, seed)) for _ in range(2))
        require(first == again, "listed() gives other clients for the same seed")
        require(
            len(first) == partition.num_listed(num_clients) and first == sorted({*first}),
            "listed() must return as many clients as num_listed() says, each once, in order",
        )
        return
    train, test = (part.targets for part in load(dataset))
    labels = tasks.of(dataset).grouping(train, test, dataset.spec.classes).train
    before = labels.copy()
    held, same = (partition.hold(labels, num_clients, seed) for _ in range(2))
    require(held.sha256 == same.sha256, "deal() gives another assignment for the same seed")
    require(np.array_equal(labels, before), "deal() writes to the labels it is given")


def metric_conforms(metric: Metric, backends: Sequence[str]) -> None:
    """What :func:`check_metric` says."""
    check_metric(metric)


def check_metric(metric: Metric) -> None:
    """A finite number for any predictions, whatever their order."""
    for task in metric.tasks:
        found = _predictions(task)
        if not metric.needs_probabilities:
            found = replace(found, probabilities=None)
        _check_metric(metric, found)


def _predictions(task: str) -> Predictions:
    """Return what a poor model says of 50 examples."""
    rng = np.random.default_rng(0)
    if task == TinyNumbers.task:
        numbers, guesses = rng.standard_normal((2, 50))
        return Predictions(numbers.astype(np.float32), guesses, np.square(numbers - guesses))
    offsets = np.arange(51) * 3 if task == TinyText.task else None
    count = 50 if offsets is None else 150
    odds = rng.dirichlet(np.ones(7), count)
    targets = rng.integers(0, 7, count)
    losses = -np.log(odds[np.arange(count), targets])
    return Predictions(targets, odds.argmax(1), losses, odds, offsets)


def _check_metric(metric: Metric, found: Predictions) -> None:
    order, alike = np.random.default_rng(1).permutation(50), np.full(len(found), found.targets[0])
    for what, some in (
        ("50 examples", found),
        ("one example", found.select(np.array([0]))),
        ("examples of one target", replace(found, targets=alike)),
    ):
        value = metric.of(some)
        require(
            isinstance(value, float) and bool(np.isfinite(value)),
            f"of() must return a finite float for {what}, got {value!r}",
        )
    close = np.isclose(metric.of(found), metric.of(found.select(order)))
    require(bool(close), "of() depends on the order of the examples")


def check_attack(attack: Attack) -> None:
    """Its code must not raise, nor return what is no weights: a client that fails is no attack."""
    before = {"w": np.ones((2, 3), np.float32), "n": np.array(3)}
    after = {"w": np.full((2, 3), 2.0, np.float32), "n": np.array(5)}
    updates = Updates([Update(client, 1, after, 4) for client in range(3)])
    held = attack.examples(Examples(np.zeros((4, 2), np.float32), np.arange(4)), 4, _rng())
    require(isinstance(held, Examples), f"examples() must return Examples, got {held!r}")
    _check_sent("weights()", attack.weights(before, after, _rng()))
    agreed = attack.collude(before, updates, {1}, _rng())
    require(isinstance(agreed, Mapping), f"collude() must return a dictionary, got {agreed!r}")
    for client, sent in agreed.items():
        _check_sent(f"collude() for client {client}", sent)


def _check_sent(what: str, sent: object) -> None:
    """Require weights of any kind: whether they are taken in is for the run to find out."""
    array = np.ndarray | np.generic  # NumPy makes scalars of arrays without dimensions
    found = isinstance(sent, Mapping) and all(isinstance(a, array) for a in sent.values())
    require(found, f"{what} must return a dictionary of NumPy arrays, got {sent!r}")


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def attack_conforms(attack: Attack, backends: Sequence[str]) -> None:
    """The same bits everywhere; what it sends is either taken in or refused, and the run goes on."""
    check_attack(attack)
    known = attack.name in attacks.choices()
    if not known:
        attacks.register(type(attack))
    try:
        own = {f.name: getattr(attack, f.name) for f in fields(attack)}
        options = {name: own[name] for name in own if name not in ("name", "scale")}
        faulty = ByzantineConfig(0.4, attack.name, attack.scale, options)
        clients = ClientsConfig(num=5, byzantine=faulty)
        same_everywhere(small(clients=clients), backends)
    finally:
        if not known:
            attacks.REGISTRY.forget(attack.name)
