"""A SuperLink and SuperNodes started by hand, as docs/deployment.md has it: by Flower's own programs.

python tests/support/federation.py          three network namespaces with addresses of their own, TLS and
                                            keys; the lesson there and in this process: the same bits

It needs root (for the namespaces), iproute2, openssl and ssh-keygen.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import distribution
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file is a program, too

from support.namespaces import Network, can_be_made

SECONDS = 180
"""How long a program may take to start, on a busy machine."""

NETWORK = Network("fedexp", "10.213.77")
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


class Federation:
    """Programs that run, in a folder of their own.

    Args:
        folder: Where keys, certificates and logs lie.
        nodes: SuperNodes.
        apart: Whether each has a network namespace, and all is encrypted and authenticated.
        held: The node config of each, where it does not hold a share.
    """

    def __init__(
        self, folder: Path, nodes: int, *, apart: bool = False, held: Sequence[str] = ()
    ) -> None:
        self.folder, self.nodes, self.apart = folder, nodes, apart
        self.held = held or [f"partition-id={k} num-partitions={nodes}" for k in range(nodes)]
        self.host = NETWORK.host if apart else "127.0.0.1"
        self.port = _free_port()
        self.programs: dict[str, subprocess.Popen[bytes]] = {}
        self.env = {**os.environ, **QUIET, "FLWR_HOME": str(folder / "home")}
        self.env["PATH"] = f"{_programs(folder / 'bin')}:{self.env['PATH']}"
        (folder / "secret").write_bytes(secrets.token_bytes(32))

    @property
    def address(self) -> str:
        """What ``backend.superlink`` must be."""
        return f"{self.host}:{self.port}"

    @property
    def overrides(self) -> list[str]:
        """What fedexp must be told."""
        words = ["backend=deployment", f"backend.superlink={self.address}"]
        words.append(f"backend.secret={self.folder}/secret")
        if self.apart:
            return [*words, f"backend.root_certificates={self.folder}/ca.crt"]
        return [*words, "backend.insecure=true"]

    def start_superlink(self) -> None:
        """Start the SuperLink, and wait until it takes connections."""
        words = ["flower-superlink", "--isolation", "process", "--host", self.host]
        words += ["--port", str(self.port), "--disable-runtime-dependency-installation"]
        words += ["--superexec-auth-secret-file", "secret", "--database", "superlink.db"]
        if self.apart:
            words += ["--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.crt"]
            words += ["--ssl-keyfile", "server.key", "--enable-supernode-auth"]
        else:
            words.append("--insecure")
        self._start("superlink", words)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection((self.host, self.port), timeout=1):
                return
            time.sleep(0.2)
        raise TimeoutError(f"no SuperLink: {self.log('superlink')}")

    def start_node(self, number: int, key: str | None = None, name: str | None = None) -> None:
        """Start a SuperNode.

        Args:
            number: Its partition, and its network namespace.
            key: The file of its key where it is not ``node-<number>``; empty for none.
            name: What the program is called where it is not ``node-<number>``.
        """
        words = NETWORK.inside(number) if self.apart else []
        port = "8001" if self.apart and name is None else str(_free_port())
        words += ["flower-supernode", "--superlink", self.address, "--host", "127.0.0.1"]
        words += ["--port", port]
        words += ["--node-config", self.held[number]]
        if self.apart:
            key = f"node-{number}" if key is None else key
            words += ["--root-certificates", "ca.crt"]
            words += ["--auth-supernode-private-key", key] if key else []
        else:
            words.append("--insecure")
        self._start(name or f"node-{number}", words)

    def stop(self, name: str) -> None:
        """Kill a program, and what it has started."""
        process = self.programs.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def log(self, name: str) -> str:
        """Return what a program has said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def register(self, key: str) -> None:
        """Let the SuperLink know a node's public key, without which the node is refused."""
        subprocess.run(
            ["flwr", "supernode", "register", f"{key}.pub", "here"],
            cwd=self.folder,
            env=self.env,
            check=True,
            capture_output=True,
        )

    def make_key(self, key: str) -> None:
        """Make a pair of keys for a node."""
        words = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-C", "", "-f", key]
        _run(words, self.folder)

    def make_certificates(self) -> None:
        """Make an authority, and the SuperLink's certificate, which is for its address alone."""
        new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout"]
        ca = ["-x509", "-days", "30", "-subj", "/CN=hospitals", "-out", "ca.crt"]
        _run([*new, "ca.key", *ca], self.folder)
        _run([*new, "server.key", "-subj", f"/CN={self.host}", "-out", "server.csr"], self.folder)
        (self.folder / "names").write_text(f"subjectAltName=IP:{self.host}\n")
        sign = ["openssl", "x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key"]
        _run([*sign, "-days", "30", "-extfile", "names", "-out", "server.crt"], self.folder)
        (self.folder / "home").mkdir(exist_ok=True)
        (self.folder / "home" / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "{self.address}"\n'
            f'root-certificates = "{self.folder}/ca.crt"\n'
        )

    def _start(self, name: str, words: Sequence[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.programs[name] = subprocess.Popen(
                words,
                cwd=self.folder,
                env=self.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@contextmanager
def federation(
    nodes: int, *, apart: bool = False, held: Sequence[str] = ()
) -> Iterator[Federation]:
    """Start a SuperLink and SuperNodes; end them all, and remove every trace, at the end."""
    with tempfile.TemporaryDirectory(prefix="federation-") as folder, NETWORK.made(nodes * apart):
        found = Federation(Path(folder), nodes, apart=apart, held=held)
        try:
            if apart:
                found.make_certificates()
            found.start_superlink()
            for number in range(nodes):
                if apart:
                    found.make_key(f"node-{number}")
                    found.register(f"node-{number}")
                found.start_node(number)
            yield found
        finally:
            for name in list(found.programs):
                found.stop(name)


def can_be_apart() -> bool:
    """Say whether network namespaces, certificates and keys can be made here."""
    return can_be_made("openssl", "ssh-keygen")


def _run(words: Sequence[str], folder: Path | None = None) -> None:
    subprocess.run(words, cwd=folder, check=True, capture_output=True)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _programs(folder: Path) -> Path:
    """Write Flower's programs for this Python: those on the PATH may be another environment's."""
    folder.mkdir()
    for point in distribution("flwr").entry_points:
        if point.group == "console_scripts":
            module, _, name = point.value.partition(":")
            path = folder / point.name
            path.write_text(f"#!{sys.executable}\nfrom {module} import {name}\n{name}()\n")
            path.chmod(0o755)
    return folder


def main() -> None:
    """Run the lesson apart and in this process, and compare."""
    words = ["model=logistic", "training.local_epochs=1", "clients.fraction_evaluate=1"]
    fedexp = [sys.executable, "-m", "fedexp"]
    with federation(3, apart=True) as found, tempfile.TemporaryDirectory() as folder:
        apart = [*fedexp, *words, *found.overrides, "hydra.run.dir=apart"]
        print(
            f"SuperLink at {found.address}, SuperNodes at {NETWORK.address(0)} and on, TLS and keys"
        )
        subprocess.run(apart, cwd=folder, check=True)
        here = [*fedexp, *words, "backend=inline", "hydra.run.dir=here"]
        subprocess.run(here, cwd=folder, check=True)
        for name in ("metrics.csv", "failures.csv", "model.safetensors"):
            same = (
                Path(folder, "apart", name).read_bytes() == Path(folder, "here", name).read_bytes()
            )
            print(f"{name}: {'the same bytes' if same else 'DIFFERENT'}")
            if not same:
                sys.exit(1)


if __name__ == "__main__":
    main()
