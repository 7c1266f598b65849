"""A network in a process: built once, then filled with the weights of whoever is at work."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedexp.core.layers import Layers
from fedexp.core.seeding import derive_seed
from fedexp.core.weights import Weights
from fedexp.data.examples import Spec
from fedexp.models.base import Model

Prepare = Callable[[Tensor], Tensor]

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


class Network:
    """A model's module, and the memory that weights are copied into.

    Everything that a client's work could leave behind is put back by :meth:`load`: what is in the state
    dict by the weights, and the rest (buffers that are not persistent, tensors and numbers that are plain
    attributes) as it was when the module was built. So it does not matter which clients were at work in
    the same process before.

    Args:
        module: The network.
        device: Where it is to lie.
        keeps_frozen: Whether its weights are without the parameters that gradients do not move, and hold
            a parameter that has several names once.

    Attributes:
        module: The network, on its device.
        parameters: Name -> what gradients move, each tensor once, in the model's order.
    """

    def __init__(
        self, module: nn.Module, device: torch.device, *, keeps_frozen: bool = False
    ) -> None:
        # Training starts in this mode, whether or not somebody has evaluated before.
        self.module = module.to(device).train()
        self.parameters: dict[str, Tensor] = {
            name: parameter
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self._state = module.state_dict()
        if keeps_frozen:
            left = self._names_of_parameters - self.parameters.keys()
            self._state = {name: part for name, part in self._state.items() if name not in left}
        self._buffers = [
            (part, name, buffer)
            for part in module.modules()
            for name, buffer in part._buffers.items()
            if buffer is not None
        ]
        self._rest = _Rest(module)

    @property
    def buffers(self) -> frozenset[str]:
        """Names of the entries of the state dict that are no parameters."""
        return frozenset(set(self._state) - self._names_of_parameters)

    @property
    def frozen(self) -> frozenset[str]:
        """Names of the parameters in its weights that gradients do not move."""
        every = self.module.named_parameters(remove_duplicate=False)
        return frozenset(
            name for name, part in every if not part.requires_grad and name in self._state
        )

    @property
    def _names_of_parameters(self) -> set[str]:
        return {name for name, _ in self.module.named_parameters(remove_duplicate=False)}

    @property
    def head(self) -> nn.Module:
        """The last of the module's layers that has parameters which gradients move."""
        return self._head[1]

    @cached_property
    def _head(self) -> tuple[str, nn.Module]:
        own = [
            (name, part)
            for name, part in self.module.named_modules()
            if any(p.requires_grad for p in part._parameters.values() if p is not None)
        ]
        return own[-1] if own else ("", self.module)  # without any, check_model says so

    @cached_property
    def layers(self) -> Layers:
        """Which entries of the state make up which layer."""
        norms = [name for name, part in self.module.named_modules() if isinstance(part, _NORMS)]
        return Layers(
            tuple(self._state),
            tuple(self.parameters),
            frozenset(self._below([self._head[0]]) or self._same_as_head()),
            frozenset(self._below(norms)),
        )

    def _same_as_head(self) -> list[str]:
        """Return the entries that are the head's under other names, as GPT-2's embedding is."""
        own = {id(part) for part in self.head._parameters.values() if part is not None}
        return [name for name in self._state if id(self.parameters.get(name)) in own]

    def _below(self, modules: Sequence[str]) -> list[str]:
        return [name for name in self._state if name.rpartition(".")[0] in modules]

    def load(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Fill the module with weights, and forget whatever it did before.

        Raises:
            ValueError: If the names or shapes are not the model's.
        """
        for part, name, buffer in self._buffers:
            part._buffers[name] = buffer  # a module may have put another tensor there
        set_weights(self._state, weights)
        self._rest.restore()

    def stacked(self, weights: Sequence[Mapping[str, npt.NDArray[Any]]]) -> dict[str, Tensor]:
        """Return several weights in one tensor an entry, shape (len(weights), ...), on the CPU.

        Raises:
            ValueError: If the names or shapes are not the model's.
        """
        found = {
            name: torch.empty((len(weights), *part.shape), dtype=part.dtype)
            for name, part in self._state.items()
        }
        for row, one in enumerate(weights):
            set_weights({name: part[row] for name, part in found.items()}, one)
        return found

    @property
    def beside(self) -> str | None:
        """What the module holds beside a set of parameters for every layer; None for nothing."""
        if self._buffers:
            return f"buffers ({self._buffers[0][1]})"
        if len(self._names_of_parameters) > len(dict(self.module.named_parameters())):
            return "parameters that layers share"
        for part in self.module.modules():
            if not type(part).__module__.startswith("torch.nn."):
                for name, value in vars(part).items():
                    if name not in _PLUMBING and not isinstance(value, (*_CONSTANT, *_FUNCTIONS)):
                        return f"an attribute ({type(part).__name__}.{name})"
        return None

    def weights(self) -> Weights:
        """Return a copy of the module's weights."""
        for part, name, buffer in self._buffers:
            current = part._buffers[name]
            if current is not None and current is not buffer:
                buffer.copy_(current.detach())
                part._buffers[name] = buffer
        return get_weights(self._state)


def build_network(
    model: Model, spec: Spec, seed: int, device: torch.device, prepare: Prepare
) -> Network:
    """Build a network under the experiment's seed; torch's global generator is left as it was.

    Args:
        model: The model's page.
        spec: Shape of an input and number of classes.
        seed: The experiment's seed. The same seed gives the same initial weights in every process.
        device: Where it is to lie.
        prepare: From stored inputs to what the model takes; lazy modules are shown two inputs of zeros.
    """
    with _forked("init", seed):
        module = model.build(spec)
        if any(isinstance(part, nn.modules.lazy.LazyModuleMixin) for part in module.modules()):
            module.eval()
            with torch.no_grad():
                module(prepare(torch.zeros((2, *spec.shape))))
            module.train()
    return Network(module, device, keeps_frozen=model.keeps_frozen)


@contextmanager
def _forked(purpose: Any, seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, purpose))  # not the GPUs', too
        yield


@contextmanager
def keyed_chance(seed: int, server_round: int, client: int, device: torch.device) -> Iterator[None]:
    """Run a block in which torch's global generator is keyed on seed, round and client.

    What the block draws (dropout's masks) depends on nothing else, and the generator is left as it was.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        torch.cuda.init()
        generators.append(torch.cuda.default_generators[device.index or 0])
    before = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(derive_seed(seed, "model", server_round, client))
    try:
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


def get_weights(state: Mapping[str, Tensor]) -> Weights:
    """Return a copy of a model's ``state_dict()`` as arrays."""
    return {name: value.detach().cpu().numpy().copy() for name, value in state.items()}


def set_weights(state: Mapping[str, Tensor], weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Copy arrays into a model's own memory.

    Args:
        state: The model's ``state_dict()``, whose tensors are that memory. Making it takes longer than
            filling that of a small model: whoever loads many weights keeps it.
        weights: What to copy.

    Raises:
        ValueError: If the names or shapes are not the model's.
    """
    if state.keys() != weights.keys():
        raise ValueError(f"weights for {list(weights)} do not fit a model of {list(state)}")
    for name, target in state.items():
        array = weights[name]
        if array.shape != tuple(target.shape):
            raise ValueError(f"{name} has shape {array.shape}, the model's {tuple(target.shape)}")
        if target.device.type == "cpu":
            np.copyto(target.numpy(), array, casting="same_kind")
        else:
            target.copy_(torch.tensor(array))


_PLUMBING = frozenset(vars(nn.Module()))
"""What every module holds: parameters, buffers, hooks, its mode."""

_CONSTANT = (int, float, bool, str, bytes, type(None), torch.dtype, torch.device, type)

_FUNCTIONS = (FunctionType, BuiltinFunctionType)


class _Rest:
    """What modules hold beside their state dict, as it was when they were built.

    torch's own layers hold nothing else that changes, so that networks made of them alone cost nothing.
    """

    def __init__(self, root: nn.Module) -> None:
        self._buffers = [
            (buffer, buffer.clone())
            for module in root.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None and name in module._non_persistent_buffers_set
        ]
        # A list of layers that are registered elsewhere must go on naming those, not copies of them.
        registered = [*root.modules(), *root.parameters(), *root.buffers()]
        self._same = {id(part): part for part in registered}
        memo = dict(self._same)  # one for all: what modules share, their copies share
        self._attributes = [
            (module, self._copied(vars(module), memo))
            for module in root.modules()
            if not type(module).__module__.startswith("torch.nn.")
        ]

    def restore(self) -> None:
        with torch.no_grad():
            for buffer, value in self._buffers:
                buffer.copy_(value)
        memo = dict(self._same)
        for module, attributes in self._attributes:
            held = vars(module)
            for name in held.keys() - attributes.keys() - _PLUMBING:
                del held[name]
            held.update(self._copied(attributes, memo))

    def _copied(self, attributes: Mapping[str, Any], memo: dict[int, Any]) -> dict[str, Any]:
        return {
            name: value if isinstance(value, _CONSTANT) else copy.deepcopy(value, memo)
            for name, value in attributes.items()
            if name not in _PLUMBING
        }
