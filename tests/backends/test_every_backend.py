"""What must be the same wherever clients run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from flwr.app import Message
from support.helpers import (
    ONE_WORKER,
    TWO_WORKERS,
    config,
    initial_weights,
    metrics,
    played_by,
    run_server,
    summary,
    tiny_data,
    weights_of,
)

from fedexp.backends import ray_session
from fedexp.config.backend import BackendConfig, FlowerBackend, InlineBackend, RayBackend
from fedexp.config.schema import Config
from fedexp.core.options import FedexpError
from fedexp.core.roles import Job, Order
from fedexp.flower.grid import CohortGrid
from fedexp.flower.messages import pack_order

LESSON: tuple[str, ...] = ()
SAMPLED = (
    "partition=iid",
    "clients.num=7",
    "clients.fraction_train=0.5",
    "clients.fraction_evaluate=1",
)

VALIDATED = (*SAMPLED, "dataset.validation=0.1", "dataset.validation_by=both", "stop.patience=1")

RunOf = Callable[..., Path]


@pytest.fixture
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start Ray, or keep it, and let Flower's runtime, which would end the session, not do so."""
    ray_session.start_ray(ONE_WORKER)
    monkeypatch.setattr(ray, "shutdown", lambda: None)


def _same_numbers(left: Path, right: Path) -> None:
    mine, theirs = summary(left), summary(right)
    assert mine["status"] == theirs["status"] == "completed"
    for key in (
        "model_sha256",
        "best_sha256",
        "partition_sha256",
        "final",
        "best",
        "rounds",
        "clients",
    ):
        assert mine[key] == theirs[key]
    for name in ("metrics.csv", "failures.csv", "confusion.csv", "partition.json"):
        assert (left / name).read_bytes() == (right / name).read_bytes()
    assert len(metrics(left)) > 0


@pytest.mark.parametrize(
    ("name", "experiment"),
    [
        pytest.param("ray", LESSON, id="ray-lesson", marks=pytest.mark.slow),  # 8 s
        pytest.param("ray", SAMPLED, id="ray-sampled", marks=pytest.mark.slow),  # 6 s
        pytest.param("ray", VALIDATED, id="ray-validated", marks=pytest.mark.slow),  # 6 s
        pytest.param("flower", LESSON, id="flower-lesson", marks=pytest.mark.slow),  # 8 s
        pytest.param("flower", SAMPLED, id="flower-sampled", marks=pytest.mark.slow),  # 7 s
    ],
)
def test_one_worker_changes_no_bit(
    name: str, experiment: tuple[str, ...], run_of: RunOf, one_worker: None
) -> None:
    parallel = run_of(f"backend={name}", "backend.workers=1", *experiment)
    _same_numbers(parallel, run_of("backend=inline", *experiment))


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param(LESSON, id="lesson", marks=pytest.mark.slow),  # 11 s
        pytest.param(VALIDATED, id="validated", marks=pytest.mark.slow),
        pytest.param(SAMPLED, id="sampled", marks=pytest.mark.slow),  # with two Ray workers, 8 s
    ],
)
def test_two_workers_change_no_bit(
    experiment: tuple[str, ...], run_of: RunOf, two_workers: None
) -> None:
    parallel = run_of("backend=ray", "backend.workers=2", *experiment)
    _same_numbers(parallel, run_of("backend=inline", *experiment))


# --- what clients keep ----------------------------------------------------------------------------


@pytest.fixture(
    params=[
        InlineBackend(),
        RayBackend(workers=2),
        pytest.param(FlowerBackend(workers=1), marks=pytest.mark.slow),
    ],
    ids=lambda b: b.name,
)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> BackendConfig:
    """Name each backend in turn; Flower's clients read their data themselves."""
    session = {"ray": "two_workers", "flower": "one_worker"}.get(request.param.name)
    if session is not None:
        request.getfixturevalue(session)
    data = tiny_data()
    monkeypatch.setattr("fedexp.backends.flower._federate_once", lambda _: data)
    found: BackendConfig = request.param
    return found


def _ask(experiment: Config) -> list[list[Any]]:
    """Call all three clients in three rounds; return the numbers they report, None where they fail."""
    answers: list[list[Any]] = []
    weights, hint = initial_weights(experiment), weights_of(0.0)

    def numbers_of(reply: Message) -> dict[str, Any]:
        numbers: dict[str, Any] = dict(reply.content.metric_records["metrics"])
        del numbers["num-examples"]
        return numbers

    def server(grid: CohortGrid) -> None:
        for server_round in (1, 2, 3):
            hint["w"][0] = server_round  # a server may compute in place
            content = pack_order(Order(weights, {"hint": hint}), server_round)
            messages = [Message(content, dst_node_id=k, message_type="train") for k in range(3)]
            replies = grid.send_and_receive(messages)
            answers.append([None if r.has_error() else numbers_of(r) for r in replies])

    run_server(experiment, tiny_data(), server)
    return answers


def test_client_state_lasts_from_call_to_call(backend: BackendConfig) -> None:
    def count(job: Job) -> None:
        calls = int(str(job.state.get("calls", 0))) + 1
        kept = job.state.get("hint", {"w": [0.0]})
        assert isinstance(kept, dict)
        job.state["calls"], job.state["hint"] = calls, job.order.arrays["hint"]
        if job.client == 1 and calls == 2:
            job.state.clear()
        job.send(job.model, numbers={"calls": calls, "kept": float(kept["w"][0])})

    answers = _ask(played_by(count, backend=backend))
    # Client 1 clears its state in its second call, so its third is a first one again.
    calls = [[answer["calls"] for answer in answers_of] for answers_of in answers]
    assert calls == [[1, 1, 1], [2, 2, 2], [3, 1, 3]]
    # The server sends the number of the round; what a client kept is that of the round before.
    kept = [[answer["kept"] for answer in answers_of] for answers_of in answers]
    assert kept == [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [2.0, 0.0, 2.0]]


def test_a_client_that_raises_keeps_the_state_it_had(backend: BackendConfig) -> None:
    def report(job: Job) -> None:
        size = len(job.state)
        job.state["seen"] = "yes"
        if job.client == 2 and job.round == 1:
            raise RuntimeError("cut off")
        job.send(job.model, numbers={"size": size})

    answers = _ask(played_by(report, backend=backend))
    sizes = [[answer and answer["size"] for answer in answers_of] for answers_of in answers]
    assert sizes == [[0, 0, None], [1, 1, 0], [1, 1, 1]]


# --- when the server fails ------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", [config(), TWO_WORKERS], ids=["inline", "ray"])
def test_an_error_of_the_server_ends_the_run(experiment: Config, two_workers: None) -> None:
    def server(_: CohortGrid) -> None:
        raise FedexpError("nothing works")

    with pytest.raises(FedexpError, match="nothing works"):
        run_server(experiment, tiny_data(), server)
