"""Machines of their own, on this one: network namespaces with addresses that a bridge joins.

It needs root and Debian's iproute2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """A bridge of this machine, and namespaces that it joins.

    Attributes:
        name: What namespaces and devices are called; at most ten letters, because a device's name may
            have 15.
        subnet: The first three numbers of every address.
    """

    name: str
    subnet: str

    @property
    def host(self) -> str:
        """The address of this machine itself."""
        return f"{self.subnet}.1"

    def address(self, number: int) -> str:
        """Return the address of a namespace, counted from 0."""
        return f"{self.subnet}.{number + 2}"

    def inside(self, number: int) -> list[str]:
        """Return the words before a command that is to run in a namespace."""
        return ["ip", "netns", "exec", f"{self.name}{number}"]

    @contextmanager
    def made(self, count: int) -> Iterator[None]:
        """Make so many namespaces, and remove every trace of them at the end."""
        bridge = f"{self.name}br"
        if count:  # it fails where somebody else has such a network: theirs is left alone
            run(["ip", "link", "add", bridge, "type", "bridge"])
        try:
            if count:
                run(["ip", "addr", "add", f"{self.host}/24", "dev", bridge])
                run(["ip", "link", "set", bridge, "up"])
            for number in range(count):
                self._add(number, bridge)
            yield
        finally:
            # A namespace goes with its last process, and its device with it: so the device goes first.
            gone = [["ip", "link", "del", f"{self.name}out{number}"] for number in range(count)]
            gone += [["ip", "netns", "del", f"{self.name}{number}"] for number in range(count)]
            gone += [["ip", "link", "del", bridge]] if count else []
            for command in gone:
                with suppress(subprocess.CalledProcessError):
                    run(command)

    def _add(self, number: int, bridge: str) -> None:
        space = f"{self.name}{number}"
        inner, outer = f"{self.name}in{number}", f"{self.name}out{number}"
        run(["ip", "netns", "add", space])
        run(["ip", "link", "add", outer, "type", "veth", "peer", "name", inner])
        run(["ip", "link", "set", inner, "netns", space])
        run(["ip", "link", "set", outer, "master", bridge, "up"])
        there = ["ip", "-n", space]
        run([*there, "addr", "add", f"{self.address(number)}/24", "dev", inner])
        run([*there, "link", "set", inner, "up"])
        run([*there, "link", "set", "lo", "up"])


def can_be_made(*programs: str) -> bool:
    """Say whether network namespaces can be made here.

    Args:
        programs: What must be installed beside ``ip``.
    """
    if os.geteuid() or not all(map(shutil.which, ("ip", *programs))):
        return False
    try:
        run(["ip", "netns", "add", "fedexp-try"])
        run(["ip", "netns", "del", "fedexp-try"])
    except subprocess.CalledProcessError:
        return False
    return True


def run(words: Sequence[str]) -> None:
    """Run a command that must succeed; what it says is kept with the error."""
    subprocess.run(words, check=True, capture_output=True)
