"""Which entries of a model make up which layer: what a strategy can leave with the clients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedexp.core.options import FedexpError

HEAD, NORM = "head", "norm"
"""Words that stand for layers: the last one, and all that normalise (BatchNorm, GroupNorm, LayerNorm)."""


@dataclass(frozen=True)
class Layers:
    """A model's entries by layer.

    Attributes:
        names: All entries of the model's state, in its order.
        parameters: Those that gradients move, in order.
        head: Those of the last layer that has parameters.
        norms: Those of the layers that normalise.
    """

    names: tuple[str, ...]
    parameters: tuple[str, ...]
    head: frozenset[str] = frozenset()
    norms: frozenset[str] = frozenset()

    def chosen(self, words: Sequence[str], option: str) -> frozenset[str]:
        """Return the entries that words stand for.

        Args:
            words: ``head``, ``norm``, or how entries begin: ``fc`` is ``fc.weight`` and ``fc.bias``.
            option: What the words are the value of, for the error.

        Raises:
            FedexpError: If a word stands for nothing.
        """
        found: set[str] = set()
        for word in words:
            known = {HEAD: self.head, NORM: self.norms}
            here = known.get(word) or self._below(word)
            if not here:
                raise FedexpError(
                    f"{option}: the model has no layer {word!r}; it has {', '.join(self._layers())} "
                    f"(and the words {HEAD} and {NORM})"
                )
            found |= here
        return frozenset(found)

    def trained(self, among: Iterable[str]) -> list[str]:
        """Return those of some entries that gradients move, in the model's order."""
        wanted = set(among)
        return [name for name in self.parameters if name in wanted]

    def others(self, than: Iterable[str]) -> frozenset[str]:
        """Return all entries but some."""
        return frozenset(self.names) - frozenset(than)

    def _below(self, word: str) -> frozenset[str]:
        return frozenset(n for n in self.names if n == word or n.startswith(f"{word}."))

    def _layers(self) -> list[str]:
        return list(dict.fromkeys(name.rpartition(".")[0] or name for name in self.names))
