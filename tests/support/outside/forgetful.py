"""A model with dropout, for vectors."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedexp import Model, Spec, main, models, ranged

if TYPE_CHECKING:
    from torch import nn


@models.register
@dataclass(frozen=True)
class Forgetful(Model):
    kinds = ("vector",)
    name: str = "forgetful"
    dropout: float = ranged(0.5, ge=0, lt=1)

    def build(self, spec: Spec) -> "nn.Module":
        from torch import nn

        (width,) = spec.shape
        layers = nn.Linear(width, 16), nn.ReLU(), nn.Dropout(self.dropout)
        return nn.Sequential(*layers, nn.Linear(16, spec.num_classes))


if __name__ == "__main__":
    main()
