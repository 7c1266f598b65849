"""The pages of ``model=``: one file a choice, and a way in for code from outside."""

from fedexp.core.registry import import_pages
from fedexp.models.base import REGISTRY, FrameworkModel, Model, register

choices, get = REGISTRY.choices, REGISTRY.get

__all__ = ["REGISTRY", "FrameworkModel", "Model", "choices", "get", "register"]

import_pages(__name__)
