"""The pages of ``strategy=``: one file a choice, and a way in for code from outside."""

from fedexp.core.registry import import_pages
from fedexp.core.replies import Carries
from fedexp.core.roles import Client, Job, Order, Server, Setup, Update, Updates
from fedexp.core.weights import Weights
from fedexp.strategies.base import (
    CENTRALIZED,
    FEDERATED,
    ISOLATED,
    REGISTRY,
    Strategy,
    carried,
    gradient_mass,
    register,
)

choices, get = REGISTRY.choices, REGISTRY.get

__all__ = [
    "CENTRALIZED",
    "FEDERATED",
    "ISOLATED",
    "REGISTRY",
    "Carries",
    "Client",
    "Job",
    "Order",
    "Server",
    "Setup",
    "Strategy",
    "Update",
    "Updates",
    "Weights",
    "carried",
    "choices",
    "get",
    "gradient_mass",
    "register",
]

import_pages(__name__)
