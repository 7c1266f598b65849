from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from fedexp.backends.backend import run_server
from fedexp.models.networks import initial_weights
from flwr.clientapp import ClientApp
from support.helpers import (
    ONE_WORKER,
    TWO_WORKERS,
    arrays,
    config,
    counting_app,
    instruction,
    interrupted_app,
    metrics,
    same_weights,
    summary,
    tiny_data,
    with_fault,
)

from fedexp.backends import backend, flower_runtime, ray_session
from fedexp.backends.inline import InlineGrid
from fedexp.config.backend import FlowerBackend, RayBackend
from fedexp.config.schema import Config
from fedexp.core.options import FedexpError
from fedexp.core.weights import Weights
from fedexp.federation.client import build_client_app
from fedexp.flower.grid import CohortGrid
from fedexp.flower.messages import to_record, to_weights

LESSON: tuple[str, ...] = ()
SAMPLED = (
    "partition=iid",
    "clients.num=7",
    "clients.fraction_train=0.5",
    "clients.fraction_evaluate=1",
)
FLOWER = config(backend=FlowerBackend(workers=1))

RunOf = Callable[..., Path]


@pytest.fixture
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start Ray, or keep it, and let Flower's runtime, which would end the session, not do so."""
    ray_session.start_ray(ONE_WORKER)
    monkeypatch.setattr(ray, "shutdown", lambda: None)


def _same_numbers(left: Path, right: Path) -> None:
    mine, theirs = summary(left), summary(right)
    assert mine["status"] == theirs["status"] == "completed"
    for key in ("model_sha256", "partition_sha256", "final", "best", "rounds", "clients"):
        assert mine[key] == theirs[key]
    for name in ("metrics.csv", "failures.csv", "confusion.csv", "partition.json"):
        assert (left / name).read_bytes() == (right / name).read_bytes()
    assert len(metrics(left)) > 0


@pytest.mark.parametrize("experiment", [LESSON, SAMPLED], ids=["lesson", "sampled"])
@pytest.mark.parametrize("name", ["ray", "flower"])
def test_one_worker_changes_no_bit(
    name: str, experiment: tuple[str, ...], run_of: RunOf, one_worker: None
) -> None:
    parallel = run_of(f"backend={name}", "backend.workers=1", *experiment)
    _same_numbers(parallel, run_of("backend=inline", *experiment))


def _ask(experiment: Config, key: str, num_rounds: int) -> list[list[Any]]:
    """Call all three clients once a round; return the metric they report, None where they failed."""
    answers: list[list[Any]] = []

    def server(grid: CohortGrid) -> None:
        for server_round in range(1, num_rounds + 1):
            messages = [instruction(client, server_round, arrays(0.0)) for client in range(3)]
            replies = grid.send_and_receive(messages)
            answers.append([None if r.has_error() else r.content["metrics"][key] for r in replies])

    run_server(experiment, tiny_data(), server)
    return answers


@pytest.fixture(params=["inline", "ray", "flower"])
def three_ways(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, one_worker: None
) -> Callable[[Callable[..., ClientApp], str], list[list[Any]]]:
    """Ask clients of another app on each backend in turn, for three rounds."""
    experiment = {"inline": config(), "ray": ONE_WORKER, "flower": FLOWER}[request.param]

    def ask(app: Callable[..., ClientApp], key: str) -> list[list[Any]]:
        def run_clients(*args: Any) -> Any:
            from fedexp.backends import grid
            from fedexp.federation import client

            original, client.build_client_app = client.build_client_app, app
            try:
                return grid._run_clients(*args)
            finally:
                client.build_client_app = original

        monkeypatch.setattr("fedexp.backends.grid._run_clients", run_clients)
        for module in (backend, flower_runtime):
            monkeypatch.setattr(module, "build_client_app", app)
        return _ask(experiment, key, num_rounds=3)

    return ask


def test_client_state_lasts_from_call_to_call(three_ways: Any) -> None:
    # Client 1 clears its state in its second call, so its third is a first one again.
    assert three_ways(counting_app, "calls") == [[1, 1, 1], [2, 2, 2], [3, 1, 3]]


def test_a_client_that_raises_keeps_the_state_it_had(three_ways: Any) -> None:
    assert three_ways(interrupted_app, "size") == [[0, 0, None], [1, 1, 0], [1, 1, 1]]


@pytest.mark.slow  # a whole Flower simulation: 5 s
def test_a_client_that_raises_on_flower_is_answered_for(
    one_worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = with_fault(tiny_data(), bad_client=1)
    monkeypatch.setattr(flower_runtime, "_federate_once", lambda _: data)
    weights = initial_weights(config().model, data.spec, 0)
    found: list[tuple[int, Any]] = []

    def server(grid: CohortGrid) -> None:
        messages = [instruction(client, 1, to_record(weights)) for client in range(3)]
        for reply in grid.send_and_receive(messages):
            answer: Any = reply.error.reason if reply.has_error() else _weights_of(reply)
            found.append((reply.metadata.src_node_id, answer))

    run_server(FLOWER, data, server)
    assert [client for client, _ in found] == [0, 1, 2]
    assert found[1][1] == "ValueError: disk of client 1 is gone"  # as on the other backends
    assert not same_weights(found[0][1], found[2][1])


def _weights_of(reply: Any) -> Weights:
    return to_weights(reply.content.array_records["arrays"])


@pytest.mark.parametrize("experiment", [LESSON, SAMPLED], ids=["lesson", "sampled"])
def test_two_workers_change_no_bit(
    experiment: tuple[str, ...], run_of: RunOf, two_workers: None
) -> None:
    parallel = run_of("backend=ray", "backend.workers=2", *experiment)
    _same_numbers(parallel, run_of("backend=inline", *experiment))


@pytest.mark.parametrize("experiment", [config(), TWO_WORKERS], ids=["inline", "ray"])
def test_an_error_of_the_server_ends_the_run(experiment: Config, two_workers: None) -> None:
    def server(_: CohortGrid) -> None:
        raise FedexpError("nothing works")

    with pytest.raises(FedexpError, match="nothing works"):
        run_server(experiment, tiny_data(), server)


class FakeRay:
    """What ray_session asks of Ray, with one CPU and no GPU; counts the sessions it starts."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.running, self.starts = False, list[dict[str, Any]]()
        patch.setattr(ray_session, "_current", None)
        patch.setattr(ray, "is_initialized", lambda: self.running)
        patch.setattr(ray, "init", self._init)
        patch.setattr(ray, "shutdown", self._shutdown)
        patch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0})
        patch.setattr(ray, "remote", lambda **_: lambda _: self)

    def remote(self) -> None:
        """Start no task."""

    def _init(self, **options: Any) -> None:
        self.running = True
        self.starts.append(options)

    def _shutdown(self) -> None:
        self.running = False


def test_a_worker_that_can_never_fit_is_refused_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRay(monkeypatch)
    greedy = config(backend=RayBackend(workers=1, num_gpus_per_worker=1.0))
    # Without the second refusal, the second job of a multirun would wait for a GPU for ever.
    for _ in range(2):
        with pytest.raises(FedexpError, match=r"num_gpus_per_worker=1\.0 can never be met.* 0 GPU"):
            ray_session.start_ray(greedy)


def test_a_session_is_started_anew_after_one_that_was_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeRay(monkeypatch)
    ray_session.start_ray(ONE_WORKER)
    with pytest.raises(FedexpError, match="can never be met"):
        ray_session.start_ray(config(backend=RayBackend(workers=1, num_gpus_per_worker=1.0)))
    ray_session.start_ray(ONE_WORKER)  # as the first, which ended when the second was tried
    assert len(fake.starts) == 3


@pytest.mark.slow  # a whole Flower simulation: 5 s
def test_a_server_that_flower_lets_end_quietly_is_no_success(one_worker: None) -> None:
    def server(_: CohortGrid) -> None:
        raise SystemExit(1)

    with pytest.raises(SystemExit):
        run_server(FLOWER, tiny_data(), server)


def test_ray_listens_on_this_machine_only_and_without_a_dashboard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeRay(monkeypatch)
    ray_session.start_ray(ONE_WORKER)
    ray_session.start_ray(ONE_WORKER)
    (options,) = fake.starts  # the second call keeps the session
    assert options["num_cpus"] == 1
    assert options["_node_ip_address"] == "127.0.0.1"
    assert options["include_dashboard"] is False


def test_a_cluster_in_the_environment_is_not_joined_unasked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeRay(monkeypatch)
    ray_session.start_ray(ONE_WORKER)
    ray.shutdown()
    ray_session.start_ray(config(backend=RayBackend(address="auto")))
    # Ray takes None for what RAY_ADDRESS says.
    assert [options["address"] for options in fake.starts] == ["local", "auto"]


def test_a_session_of_somebody_elses_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay(monkeypatch)
    fake.running = True
    with pytest.raises(FedexpError, match=r"ray\.shutdown\(\) first, or choose backend=inline"):
        ray_session.start_ray(ONE_WORKER)
    assert fake.running


def test_a_start_that_is_interrupted_leaves_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    fake = FakeRay(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(ray, "cluster_resources", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ray_session.start_ray(ONE_WORKER)
    assert not fake.running
    ray_session.start_ray(ONE_WORKER)  # a notebook's next cell
    assert fake.running


def test_waiting_for_flower_ends_when_its_runtime_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    inner, stop = InlineGrid(build_client_app(config(), tiny_data), 3), threading.Event()
    monkeypatch.setattr(inner, "pull_messages", lambda _: [])  # nobody answers any more
    grid = flower_runtime.FlowerGrid(inner, stop)
    inner.cohort = [0, 1, 2]
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(SystemExit):
        grid.discover(3)
    inner.cohort = []
    with pytest.raises(SystemExit):
        grid.discover(3)


def test_an_address_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise ConnectionError("nobody there")

    FakeRay(monkeypatch)
    monkeypatch.setattr(ray, "init", refuse)
    remote = config(backend=RayBackend(address="127.0.0.1:1"))
    with pytest.raises(FedexpError, match=r"backend\.address=127\.0\.0\.1:1.*nobody there.*inline"):
        ray_session.start_ray(remote)


@pytest.mark.parametrize(
    ("cpus", "num_clients", "fraction", "cpus_per_worker", "expected"),
    [
        (2, 3, 1.0, 1.0, 2),
        (8, 3, 1.0, 1.0, 3),  # a fourth would have nothing to do
        (2, 100, 0.01, 1.0, 1),  # a cohort of one
        (8, 100, 1.0, 4.0, 2),
        (1, 1, 1.0, 4.0, 1),  # at least one
    ],
)
def test_default_number_of_workers(
    cpus: int,
    num_clients: int,
    fraction: float,
    cpus_per_worker: float,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_session, "usable_cpus", lambda: cpus)
    clients = replace(config().clients, num=num_clients, fraction_train=fraction)
    ray_backend = RayBackend(num_cpus_per_worker=cpus_per_worker)
    experiment = config(clients=clients, backend=ray_backend)
    assert ray_session._default_workers(experiment, ray_backend) == expected
