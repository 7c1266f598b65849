"""Yogi on the server."""

from __future__ import annotations

from dataclasses import dataclass

from fedexp.core.roles import Server, Setup
from fedexp.strategies.base import register
from fedexp.strategies.fedadam import FedAdam


@register
@dataclass(frozen=True)
class FedYogi(FedAdam):
    """Reddi et al., ICLR 2021, arXiv 2003.00295, by Flower's FedYogi; options as FedAdam's."""

    name: str = "fedyogi"

    def server(self, setup: Setup) -> Server:
        """Return Flower's strategy behind the adapter."""
        from flwr.serverapp import strategy

        return self._behind_adapter(strategy.FedYogi)
