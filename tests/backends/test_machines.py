"""Which machines of a cluster are used, and how many workers fit on them; no machine is started."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from support.helpers import config

from fedexp.backends import machines, ray_session
from fedexp.backends.machines import PATIENCE, Crew, compared, ensure_same, workers_on
from fedexp.config.backend import RayBackend
from fedexp.config.composition import compose_config
from fedexp.core.options import ConfigError, FedexpError

OWN = {"fedexp": "1", "torch": "2", "optional": None, machines.SOURCE: "a", machines.PROCESSOR: "x"}


class Cloud:
    """Stands in for Ray: machines that come and go, and what each says that it has.

    Attributes:
        up: CPUs of each machine that is up.
        says: What a machine has otherwise than here; None if it says nothing, an error if it raises one.
        options: Where the last task had to run.
    """

    exceptions = ray.exceptions

    def __init__(self, up: Mapping[str, float]) -> None:
        self.up, self.says = dict(up), dict[str, Any]()
        self.now, self.asked, self.canceled = 0.0, list[str](), list[str]()

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeID": name,
                "NodeManagerAddress": f"at {name}",
                "Alive": name in self.up,
                "Resources": {"CPU": self.up.get(name, 0.0)},
            }
            for name in (*self.up, "dead")
        ]

    def remote(self, **_: Any) -> Any:
        return lambda _: SimpleNamespace(options=self._options)

    def _options(self, scheduling_strategy: Any) -> Any:
        def submit() -> str:
            self.asked.append(scheduling_strategy.node_id)
            return self.asked[-1]

        return SimpleNamespace(remote=submit)

    def wait(
        self, tasks: list[str], num_returns: int, timeout: float
    ) -> tuple[list[str], list[str]]:
        assert num_returns == len(tasks)
        late = [task for task in tasks if self.says.get(task, {}) is None]
        self.now += timeout if late else 0
        return [task for task in tasks if task not in late], late

    def get(self, task: str) -> Any:
        said = self.says.get(task, {})
        if isinstance(said, BaseException):
            raise said
        return {**OWN, **said}

    def cancel(self, task: str, force: bool) -> None:
        self.canceled.append(task)


def _on(node: str, *, soft: bool) -> Any:
    assert not soft
    return SimpleNamespace(node_id=node)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    found = Cloud({"a": 1.0, "b": 4.0, "head": 0.0})
    monkeypatch.setattr(machines, "ray", found)
    monkeypatch.setattr(machines, "_installed", lambda *_: lambda: OWN)
    monkeypatch.setattr(machines, "NodeAffinitySchedulingStrategy", _on)
    monkeypatch.setattr(machines, "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


def test_workers_follow_the_machines_that_come_and_go(cloud: Cloud) -> None:
    crew = Crew(RayBackend())
    assert crew.workers == 5
    cloud.up |= {"c": 2.0}
    crew.look(every=1.0)
    assert crew.workers == 5, "it has looked just now"
    crew.look()
    assert crew.workers == 7
    del cloud.up["b"]
    crew.look()
    assert crew.workers == 3
    assert sorted(cloud.asked) == ["a", "b", "c"], "once each; the head runs no clients"
    assert crew.placement() == {}


def test_a_machine_that_has_something_else_is_not_used(cloud: Cloud) -> None:
    cloud.says["b"] = {"torch": "3"}
    crew = Crew(RayBackend())
    assert (crew.workers, set(crew.unfit)) == (1, {"b"})
    assert crew.complaints() == "at b has torch 3 (2 here)"
    assert crew.placement() == {"label_selector": {"ray.io/node-id": "!in(b)"}}
    assert crew.news == []
    assert crew.summary() == "at a (1 CPU), at head (no CPU); not used: at b has torch 3 (2 here)"
    del cloud.up["b"]  # it comes back under another name
    cloud.up["b2"] = 4.0
    crew.look()
    assert (crew.workers, crew.complaints(), crew.placement()) == (5, "", {})
    assert crew.news == ["at b has left the cluster", "at b2 (4 CPU) can be used"]


def test_a_machine_that_joins_has_time_to_answer_while_others_work(cloud: Cloud) -> None:
    crew = Crew(RayBackend())
    cloud.up["c"], cloud.says["c"] = 2.0, None
    crew.look()
    assert (crew.workers, crew.unfit, cloud.now) == (5, {}, 0.0)
    cloud.now += PATIENCE
    crew.look()
    assert (crew.workers, set(crew.unfit), cloud.canceled) == (5, {"c"}, ["c"])
    assert crew.news == ["at c is not used: it says nothing for 60 s"]


def test_a_machine_is_waited_for_at_the_start(cloud: Cloud) -> None:
    cloud.says["a"] = None
    crew = Crew(RayBackend())
    assert cloud.now == PATIENCE
    assert crew.complaints() == "at a says nothing for 60 s"


def test_a_machine_that_is_gone_before_it_answers_is_nobodys_fault(cloud: Cloud) -> None:
    cloud.says["a"] = ray.exceptions.NodeDiedError("gone")
    crew = Crew(RayBackend())
    del cloud.up["a"]
    crew.look()
    assert (crew.workers, crew.unfit) == (4, {})


def test_another_processor_is_told(cloud: Cloud) -> None:
    cloud.says["a"] = {machines.PROCESSOR: "y"}
    crew = Crew(RayBackend())
    assert crew.workers == 5
    assert "at a (1 CPU; last bits may differ: y, here x)" in crew.summary()


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        ({}, ""),
        ({machines.PROCESSOR: "y"}, ""),
        ({"torch": "3"}, "has torch 3 (2 here)"),
        ({"torch": None}, "has no torch"),
        ({"optional": "1"}, "has optional 1 (none here)"),
        ({machines.SOURCE: "b"}, "has other files of fedexp"),
        ({"fedexp": "0", machines.SOURCE: "b"}, "has fedexp 0 (1 here)"),
        ({"fedexp": None, "torch": "3"}, "has no fedexp, torch 3 (2 here)"),
    ],
)
def test_what_differs_is_said(theirs: dict[str, str | None], expected: str) -> None:
    assert compared(OWN, {**OWN, **theirs}) == expected


def test_a_worker_works_where_all_is_as_at_the_driver() -> None:
    own = machines._installed(("torch", "fedexp"), machines.SOURCE, machines.PROCESSOR)()
    assert own["torch"] is not None
    ensure_same(own)
    ensure_same(None)
    with pytest.raises(RuntimeError, match="this machine has torch"):
        ensure_same({**own, "torch": "0"})
    with pytest.raises(RuntimeError, match="other files of fedexp"):
        ensure_same({**own, machines.SOURCE: "0"})


def test_what_a_machine_is_asked_travels_without_fedexp(monkeypatch: pytest.MonkeyPatch) -> None:
    look = machines._installed(("torch",), machines.SOURCE, machines.PROCESSOR)
    sent = ray.cloudpickle.dumps(look)
    for name in ("fedexp", "fedexp.backends", "fedexp.backends.machines"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it raises an error
    assert ray.cloudpickle.loads(sent)() == look()


@pytest.mark.parametrize(
    ("cpus", "gpus", "have", "expected"),
    [
        (1.0, 0.0, {}, 0),
        (1.0, 0.0, {"CPU": 3.5}, 3),
        (4.0, 0.0, {"CPU": 3.5}, 0),
        (1.0, 0.5, {"CPU": 3.0}, 0),
        (1.0, 0.5, {"CPU": 3.0, "GPU": 1.0}, 2),
    ],
)
def test_how_many_workers_fit_on_a_machine(
    cpus: float, gpus: float, have: dict[str, float], expected: int
) -> None:
    backend = RayBackend(num_cpus_per_worker=cpus, num_gpus_per_worker=gpus)
    assert workers_on(have, backend) == expected


@pytest.mark.parametrize("address", ["there", "there:0", "ray://there:10001", ":6379", "local"])
def test_an_address_must_be_a_host_and_a_port(address: str) -> None:
    with pytest.raises(ConfigError, match=r"backend\.address must be HOST:PORT"):
        compose_config([f"backend.address='{address}'"])


def test_an_address_where_nobody_listens_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_session, "_current", None)
    monkeypatch.setattr(
        ray, "is_initialized", lambda: False
    )  # nor is what another test has started
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{one.getsockname()[1]}"
        with pytest.raises(FedexpError, match=f"backend.address={address}: nobody answers there"):
            ray_session.start_ray(config(backend=RayBackend(address=address)))


def test_a_cluster_without_room_for_a_worker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    have = [{"CPU": 0.0}, {"CPU": 2.0, "GPU": 1.0}]
    found = [machines.Machine(str(k), f"10.0.0.{k}", one) for k, one in enumerate(have)]
    monkeypatch.setattr(ray_session, "machines", lambda: found)
    greedy = RayBackend(address="10.0.0.0:1", num_cpus_per_worker=4)
    with pytest.raises(FedexpError, match=r"num_cpus_per_worker=4.*10\.0\.0\.0:1 has is 2 CPU"):
        ray_session._join(config(backend=greedy), greedy)
