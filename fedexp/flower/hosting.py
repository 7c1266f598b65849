"""Flower's own programs, run by a process that has imported them already, which takes seconds."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from flwr.superlink.cli import flower_superlink
from flwr.supernode.cli import flower_supernode
from flwr.supernode.runtime.run_clientapp import run_clientapp


def serve(program: str, arguments: Sequence[str]) -> None:
    """Be ``flower-superlink`` or ``flower-supernode`` from now on; does not return."""
    sys.argv = [program, *arguments]
    {"flower-superlink": flower_superlink, "flower-supernode": flower_supernode}[program]()


def run_client(address: str, token: str, parent: int) -> None:
    """Be the ``flwr-clientapp`` of a SuperNode on this machine for one message; does not return.

    Args:
        address: ``host:port`` of the SuperNode.
        token: Of the message.
        parent: Process without which there is nothing to do.
    """
    run_clientapp(runtime_api_address=address, token=token, insecure=True, parent_pid=parent)
