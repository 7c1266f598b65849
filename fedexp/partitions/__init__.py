"""The pages of ``partition=``: one file a choice, and a way in for code from outside."""

from fedexp.core.registry import import_pages
from fedexp.partitions.base import REGISTRY, Partition, deal_pools, register

choices, get = REGISTRY.choices, REGISTRY.get

__all__ = ["REGISTRY", "Partition", "choices", "deal_pools", "get", "register"]

import_pages(__name__)
