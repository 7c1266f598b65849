"""Sessions of Ray: when they are started, kept, refused and ended."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import ray
from support.helpers import ONE_WORKER, config

from fedexp.backends import ray_session
from fedexp.config import backend as backend_options
from fedexp.config.backend import RayBackend
from fedexp.core.options import FedexpError


class FakeRay:
    """What ray_session asks of Ray, with one CPU and no GPU; counts the sessions it starts."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.running, self.starts = False, list[dict[str, Any]]()
        patch.setattr(ray_session, "_current", None)
        patch.setattr(ray_session, "_ours", False)
        patch.setattr(ray_session, "_warming", [])
        # Another file's session in this process would lose its token.
        patch.setattr(ray_session, "private_session", nullcontext)
        patch.setattr(ray_session, "joining", nullcontext)
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
    monkeypatch.setattr(ray_session, "_join", lambda *_: 1)
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


def test_an_address_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise ConnectionError("nobody there")

    FakeRay(monkeypatch)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray_session, "_ensure_answer", lambda _: None)
    remote = config(backend=RayBackend(address="127.0.0.1:1"))
    with pytest.raises(
        FedexpError, match=r"backend\.address=127\.0\.0\.1:1.*nobody there.*ray start"
    ):
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
    monkeypatch.setattr(backend_options, "usable_cpus", lambda: cpus)
    clients = replace(config().clients, num=num_clients, fraction_train=fraction)
    ray_backend = RayBackend(num_cpus_per_worker=cpus_per_worker)
    assert ray_backend.workers_for(clients.cohort) == expected
    assert RayBackend(workers=7).workers_for(clients.cohort) == 7
