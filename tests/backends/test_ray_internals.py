"""A session of Ray that fedexp started: who can reach it, and what a stranger gets."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import psutil
import pytest
import ray

from fedexp.backends import ray_internals

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
LEFTOVERS: set[str] = set()
"""Programs of a session that listen elsewhere; docs/reliability.md says so, too."""

CALLS = (
    "JobInfoGcsService/GetAllJobInfo",
    "InternalKVGcsService/InternalKVKeys",
    "NodeManagerService/RequestWorkerLease",
    "ObjectManagerService/Push",
    "CoreWorkerService/PushTask",
)
"""One call of each kind of Ray's ports: start a job, read its code, take a worker, data, run a task."""

ENDLESS = ("rounds=100000", "model=logistic", "training.local_steps=2", "backend.workers=2")

JOIN = """
import ray, sys
ray.init(address=sys.argv[1], _node_ip_address="127.0.0.1", log_to_driver=False)
print(ray.get(ray.remote(lambda: "ran").remote()))
"""


def _processes(driver: int) -> list[psutil.Process]:
    process = psutil.Process(driver)
    return [process, *process.children(recursive=True)]


def _ports(driver: int) -> Iterator[tuple[str, str, int]]:
    """Yield program, address and port of all that a session's processes listen on."""
    for process in _processes(driver):
        for socket in process.net_connections("inet"):
            if socket.status == psutil.CONN_LISTEN:
                yield process.name(), socket.laddr.ip, socket.laddr.port


def _token(driver: int) -> str:
    """Return the token of a session, as its own processes have it."""
    server = next(p for p in _processes(driver) if "gcs_server" in p.name())
    return str(server.environ()["RAY_AUTH_TOKEN"])


def _answer(port: int, call: str, token: str | None) -> grpc.StatusCode:
    told = [("authorization", f"Bearer {token}")] if token else None
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(f"/ray.rpc.{call}")(b"", timeout=10, metadata=told)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_a_session_listens_on_loopback(two_workers: None) -> None:
    ports = list(_ports(os.getpid()))
    assert len(ports) >= 4  # its server, its raylet (two), this process
    assert {name for name, address, _ in ports if address not in LOOPBACK} == LEFTOVERS


def test_a_call_without_the_token_is_refused_on_every_port(two_workers: None) -> None:
    token = _token(os.getpid())
    served = set()
    for program, _, port in _ports(os.getpid()):
        if "RuntimeEnvAgent" in program:
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/get_runtime_envs_info", data=b"")
            continue
        for call in CALLS:
            stranger, wrong = _answer(port, call, None), _answer(port, call, "0" * 64)
            ours = _answer(port, call, token)
            if ours is not grpc.StatusCode.UNIMPLEMENTED:  # another port's
                served.add(call)
                assert (stranger, wrong) == (grpc.StatusCode.UNAUTHENTICATED,) * 2
                assert ours is not grpc.StatusCode.UNAUTHENTICATED
    assert served == set(CALLS)


def test_the_token_is_in_no_file_and_on_no_command_line(two_workers: None) -> None:
    token = _token(os.getpid())
    assert len(token) == 64
    assert not any(token in word for p in psutil.process_iter() for word in _words(p))
    files = [path for path in _session().rglob("*") if path.is_file()]
    assert files
    assert not any(token.encode() in path.read_bytes() for path in files)
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_the_folder_of_a_session_is_the_users_alone(two_workers: None) -> None:
    folder = _session().parents[1]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == os.getuid()


def test_a_folder_that_somebody_else_has_made_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    first = Path(ray_internals.session_folder() or "").parent
    assert Path(ray_internals.session_folder() or "").parent == first
    first.chmod(0o777)
    second = Path(ray_internals.session_folder() or "").parent
    first.rmdir()
    first.symlink_to(tmp_path)
    third = Path(ray_internals.session_folder() or "").parent
    assert len({first, second, third}) == 3
    assert [stat.S_IMODE(path.stat().st_mode) for path in (second, third)] == [0o700] * 2


def _session() -> Path:
    """Return the folder where a session logs and keeps its sockets."""
    raylet = next(p for p in _processes(os.getpid()) if p.name() == "raylet")
    (word,) = (w for w in raylet.cmdline() if w.startswith("--session_dir="))
    return Path(word.partition("=")[2])


def _words(process: psutil.Process) -> list[str]:
    try:
        words: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return words


def test_the_environment_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    # The session of other tests must not lose its token.
    monkeypatch.setattr(ray_internals, "read_environment", lambda: None)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    before, tokens = dict(os.environ), set()
    for _ in range(2):
        with ray_internals.private_session():
            tokens.add(os.environ["RAY_AUTH_TOKEN"])
        assert dict(os.environ) == before
    assert len(tokens - {"mine"}) == 2


def _join(address: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    here = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    impatient = {"RAY_NUM_REDIS_GET_RETRIES": "2", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    return subprocess.run(
        [sys.executable, "-c", JOIN, address],
        env={**here, **impatient, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow  # three processes that start Ray's driver: 15 s
def test_a_stranger_is_refused_and_the_owner_let_in(two_workers: None) -> None:
    address, token = ray.get_runtime_context().gcs_address, _token(os.getpid())
    for environment in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
        stranger = _join(address, environment)
        assert stranger.returncode != 0
        assert "ran" not in stranger.stdout
    owner = _join(address, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token})
    assert (owner.returncode, owner.stdout) == (0, "ran\n")


def test_a_cluster_is_not_tried_for_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    # The session of other tests must not lose its token.
    monkeypatch.setattr(ray_internals, "read_environment", lambda: None)
    constants = ray._private.ray_constants
    before = constants.NUM_REDIS_GET_RETRIES
    with ray_internals.joining():
        assert constants.NUM_REDIS_GET_RETRIES == ray_internals.JOINS < before
    assert before == constants.NUM_REDIS_GET_RETRIES


@pytest.mark.slow  # a whole command on a cluster: 15 s
def test_a_cluster_is_joined_with_its_own_token(two_workers: None, tmp_path: Path) -> None:
    address, token = ray.get_runtime_context().gcs_address, _token(os.getpid())
    command = "model=logistic rounds=1 training.local_steps=1 hydra.run.dir=run".split()
    found = subprocess.run(
        [sys.executable, "-m", "fedexp", *command, f"backend.address={address}"],
        cwd=tmp_path,
        env={
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        },
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.slow  # a whole command each: 10 s
@pytest.mark.parametrize("backend", ["ray", "flower"])
def test_a_run_listens_on_loopback(tmp_path: Path, backend: str) -> None:
    command = [sys.executable, "-u", "-m", "fedexp", f"backend={backend}", *ENDLESS]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any("round 2/" in line for line in process.stdout)
        ports = list(_ports(process.pid))
        token = _token(process.pid)
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert {address for _, address, _ in ports} <= set(LOOPBACK)
    assert len(token) == 64


@pytest.mark.slow  # imports Ray in a process of its own: 2 s
def test_what_a_session_had_does_not_stay_where_a_cluster_is_joined() -> None:
    code = (
        "import ray, fedexp.backends.ray_internals as internals\n"
        "mode, token = ray._raylet.get_authentication_mode, ray._raylet.AuthenticationMode.TOKEN\n"
        "with internals.private_session(): inside = mode() == token\n"
        "internals.read_environment()\n"
        "print(inside, mode() == token)\n"
    )
    here = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    found = subprocess.run(
        [sys.executable, "-c", code], env=here, capture_output=True, text=True, check=False
    )
    assert found.stdout == "True False\n"
