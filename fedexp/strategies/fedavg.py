"""Federated averaging."""

from __future__ import annotations

from dataclasses import dataclass

from fedexp.strategies.base import Strategy, register


@register
@dataclass(frozen=True)
class FedAvg(Strategy):
    """McMahan et al., AISTATS 2017, arXiv 1602.05629: the mean of the clients' weights, by examples.

    Both sides are fedexp's defaults (``Server`` and ``Client``). A test compares every bit with
    Flower's FedAvg.
    """

    name: str = "fedavg"
