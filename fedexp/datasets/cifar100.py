"""CIFAR-100, as torchvision has it."""

from __future__ import annotations

from dataclasses import dataclass

from fedexp.data.torchvision_files import Source, halves
from fedexp.datasets.base import coloured, register
from fedexp.datasets.cifar10 import CifarDataset

_THINGS = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
    cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
    lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
    orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum
    rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
    trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """.split()
)


@register
@dataclass(frozen=True)
class Cifar100(CifarDataset):
    """60,000 photographs with a hundred fine labels (Krizhevsky 2009)."""

    facts = coloured(_THINGS)
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)

    name: str = "cifar100"

    @property
    def source(self) -> Source:
        """Three files of one folder."""
        return Source("CIFAR100", "cifar-100-python", ("train", "test", "meta"), *halves())
