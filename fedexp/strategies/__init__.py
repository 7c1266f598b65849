"""The pages of ``strategy=``: one file a choice, and a way in for code from outside."""

from fedexp.core.registry import import_pages
from fedexp.core.roles import Client, Job, Order, Server, Setup, Update, Updates
from fedexp.core.weights import Weights
from fedexp.strategies.base import (
    CENTRALIZED,
    FEDERATED,
    ISOLATED,
    REGISTRY,
    Strategy,
    gradient_mass,
    register,
)

choices, get = REGISTRY.choices, REGISTRY.get

__all__ = [
    "CENTRALIZED",
    "FEDERATED",
    "ISOLATED",
    "REGISTRY",
    "Client",
    "Job",
    "Order",
    "Server",
    "Setup",
    "Strategy",
    "Update",
    "Updates",
    "Weights",
    "choices",
    "get",
    "gradient_mass",
    "register",
]

import_pages(__name__)
