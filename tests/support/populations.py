"""What nobody can do with a hundred million clients, however they get their examples."""

from __future__ import annotations

from typing import Any

from fedexp.config.backend import FlowerBackend
from fedexp.config.clients import ByzantineConfig, ClientsConfig
from fedexp.strategies.ditto import Ditto
from fedexp.strategies.local_only import LocalOnly

MANY = 100_000_000

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"clients": ClientsConfig(10**20, 1e-19)}, "clients.num must be"),
    ({"clients": ClientsConfig(MANY)}, "clients.fraction_train"),
    ({"clients": ClientsConfig(MANY, 1e-7, fraction_evaluate=0.5)}, "fraction_evaluate"),
    ({"clients": ClientsConfig(MANY, 1e-7, unseen=0.1)}, "clients.unseen"),
    (
        {"clients": ClientsConfig(MANY, 1e-7, byzantine=ByzantineConfig(0.1))},
        "clients.byzantine.fraction",
    ),
    ({"strategy": LocalOnly()}, "strategy=local_only"),
    ({"strategy": Ditto()}, "strategy=ditto"),
    ({"backend": FlowerBackend()}, "backend=flower"),
]
"""Choices of an experiment with so many, and what the refusal names."""
