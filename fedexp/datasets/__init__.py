"""The pages of ``dataset=``: one file a choice, and a way in for code from outside."""

from fedexp.core.registry import import_pages
from fedexp.data.examples import Examples, Spec
from fedexp.datasets.base import REGISTRY, Dataset, ImageDataset, PopulationDataset, register

choices, get = REGISTRY.choices, REGISTRY.get

__all__ = [
    "REGISTRY",
    "Dataset",
    "Examples",
    "ImageDataset",
    "PopulationDataset",
    "Spec",
    "choices",
    "get",
    "register",
]

import_pages(__name__)
