"""What a model is: options, what it needs of the data, and a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from fedexp.core.options import Plan
from fedexp.core.registry import Registry
from fedexp.data.examples import Spec
from fedexp.frameworks.base import Learner
from fedexp.tasks import TOKENS, fits

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Model:
    """A network and its options; of a torch module, :class:`FrameworkModel` of anything else.

    Attributes:
        kinds: Kinds of inputs that it takes, such as ``image``; none stands for every kind.
        tasks: What it can be trained for, such as ``classification``; none stands for every task.
        has_buffers: Whether its state holds more than what gradients move, such as BatchNorm's running
            statistics and integer counters.
        normalises: Whether it has layers that normalise: BatchNorm, GroupNorm or LayerNorm.
        min_side: Least height and width of an image, in pixels, that it can be trained on.
        framework: What it is written in.
        packages: What has to be installed for it, beside what fedexp needs itself: names of distributions
            such as ``jax``. A run goes on only with the same versions.
        extra: The extra of fedexp that brings them, if one does.
        allows: Option -> the values that it may have with this model, such as ``{"training.momentum":
            (0.0,)}``; all others are refused.
        lacks: Arguments of ``job.train`` that it cannot heed: ``only``, ``pull`` or ``correction``.
        keeps_frozen: Whether parameters that gradients do not move stay where the network is built: they
            are neither sent nor saved, because ``build`` gives the same ones everywhere.
        tested_at_once: Examples that are tested in one go. More take more memory, and more time where
            what a layer makes of them no longer fits the processor's cache.
        folders: Options that name folders which a run reads, such as that of a pre-trained network.
    """

    kinds: ClassVar[tuple[str, ...]] = ()
    tasks: ClassVar[tuple[str, ...]] = ()
    has_buffers: ClassVar[bool] = False
    normalises: ClassVar[bool] = False
    min_side: ClassVar[int] = 1
    framework: ClassVar[str] = "PyTorch"
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    allows: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType({})
    lacks: ClassVar[tuple[str, ...]] = ()
    keeps_frozen: ClassVar[bool] = False
    tested_at_once: ClassVar[int] = 500
    folders: ClassVar[tuple[str, ...]] = ()

    name: str = ""

    @classmethod
    def takes(cls, kind: str, task: str) -> bool:
        """Say whether it takes inputs of a kind, and can be trained for a task."""
        return fits(cls.kinds, kind) and fits(cls.tasks, task)

    @property
    def cannot(self) -> frozenset[str]:
        """Arguments of ``job.train`` that its framework cannot heed."""
        return frozenset(self.lacks)

    def errors(self, plan: Plan) -> Iterable[str]:
        """Return a line for every rule between options that is broken."""
        return []

    def ensure(self, spec: Spec) -> None:
        """See to it that :meth:`build` will find what it needs, before anything else is started.

        Raises:
            FedexpError: With what to do, if it will not.
        """

    def files_sha256(self) -> str | None:
        """Return the hash of the files that :meth:`build` reads; None where it reads none.

        A run goes on (``fedexp resume``) only where they are as they were.
        """
        return None

    def build(self, spec: Spec) -> nn.Module:
        """Return the network, its initial weights drawn from torch's global generator.

        It is built once in every process, each time under the same seed, and then filled with the
        weights of whichever client it trains. What requires gradients is trained; a parameter that the
        loss does not depend on stays as it is. It may draw random numbers while it trains (dropout), from
        torch's global generator. ``docs/extend.md`` has the whole contract.

        Args:
            spec: Shape of an input, and how many numbers a prediction has (``spec.outputs``).

        Returns:
            A module from prepared inputs, shape (n, *spec.shape), float32 (of tokens int64), to outputs,
            shape (n, spec.outputs): logits of a classification, numbers of a regression. Where the next
            token is predicted, shape (n, T, spec.outputs): logits at every place.
        """
        raise NotImplementedError(f"model={self.name} does not say how it is built")

    def learner(self, spec: Spec, task: str) -> Learner | None:
        """Return what trains it in another framework; None where :meth:`build` returns a torch module.

        Args:
            spec: Shape of an input, and how many numbers a prediction has (``spec.outputs``).
            task: The data set's, such as ``classification``; it decides the loss.
        """
        return None


@dataclass(frozen=True)
class FrameworkModel(Model):
    """A model in a framework other than PyTorch: :meth:`learner` takes the place of :meth:`build`.

    The framework chooses its device and its threads itself.
    """

    framework = ""
    allows: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {"training.amp": (False,), "backend.device": ("auto",), "backend.threads": (1,)}
    )

    @property
    def cannot(self) -> frozenset[str]:
        """Losses and rules of strategies are written in PyTorch."""
        return frozenset(self.lacks) | {"loss", "rule"}

    def learner(self, spec: Spec, task: str) -> Learner:
        """Return what trains it; called once in every process. Import the framework here."""
        raise NotImplementedError(f"model={self.name} does not say what trains it")


NUMBERS = ("image", "vector", "series")
"""Kinds of inputs that are numbers, which any layer takes once they are put in a row."""

WHOLE = ("classification", "regression")
"""Tasks with one prediction for an input."""

__all__ = ["NUMBERS", "REGISTRY", "TOKENS", "WHOLE", "FrameworkModel", "Model", "register"]

REGISTRY: Registry[Model] = Registry("model", Model)
register = REGISTRY.register
