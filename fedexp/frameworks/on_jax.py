"""What trains a function that JAX can differentiate: optax's optimizers, on the CPU, on one thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np

from fedexp.core.weights import Weights
from fedexp.frameworks.base import Array, Batch, Learner, Recipe
from fedexp.tasks import IGNORED

Apply = Callable[[Any, Any, Any], Any]
"""From weights, a batch of inputs and a key (None while nothing is trained) to outputs."""

ADAM_BETA_2 = 0.999
"""Decay of Adam's second moment (Kingma and Ba, arXiv 1412.6980), as torch has it."""

_FLAG = "--xla_cpu_multi_thread_eigen=false"


def start_jax() -> None:
    """Have JAX compute on the CPU and on one thread, so that bits do not depend on the machine's cores.

    Must be called before anything is computed in this process.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_multi_thread_eigen" not in flags:  # read when JAX computes for the first time
        os.environ["XLA_FLAGS"] = f"{flags} {_FLAG}".strip()
    import jax

    jax.config.update("jax_platforms", "cpu")


class JaxLearner(Learner):
    """Trains weights of a pure function.

    A step is compiled once for every size of a batch. Few sizes occur: batches are filled up with
    examples that do not count, an epoch's last one to the size of the others.

    Args:
        draw: From a seed to initial weights, float32.
        apply: The function.
        task: The data set's; it decides the loss.
    """

    def __init__(self, draw: Callable[[int], Weights], apply: Apply, task: str) -> None:
        start_jax()
        import jax

        self._draw, self._apply, self._loss = draw, apply, loss_of(task)
        self._outputs = jax.jit(lambda weights, inputs: apply(weights, inputs, None))
        self._step = cache(self._compiled_step)

    def initial(self, seed: int) -> Weights:
        """Draw weights."""
        return self._draw(seed)

    def fit(
        self, start: Weights, batches: Iterable[Batch], recipe: Recipe
    ) -> tuple[Weights, list[float]]:
        """Take a compiled step on every batch."""
        import jax

        optimizer = optimizer_of(recipe.optimizer, recipe.momentum, recipe.weight_decay)
        step = self._step(
            optimizer, recipe.max_grad_norm, bool(recipe.pull), bool(recipe.correction)
        )
        moving = {name: start[name] for name in recipe.only}
        still = {name: array for name, array in start.items() if name not in moving}
        state, key, losses, size = optimizer.init(moving), jax.random.key(recipe.seed), [], 0
        for number, (inputs, targets) in enumerate(batches):
            size = size or rounded(len(inputs))
            counts = (np.arange(size) < len(inputs)).astype(np.float32)
            batch = filled(inputs, size), filled(targets, size), counts
            further = recipe.learning_rate, recipe.pull, recipe.toward, recipe.correction
            moving, state, loss = step(moving, state, still, batch, key, number, further)
            losses.append(loss)
        trained = {**start, **{name: np.array(array) for name, array in moving.items()}}
        return trained, [float(loss) for loss in losses]

    def outputs(self, weights: Weights, inputs: Array) -> Array:
        """Run the function over a batch whose size is filled up to a power of two."""
        size = 1 << (len(inputs) - 1).bit_length()
        return np.asarray(self._outputs(weights, filled(inputs, size)))[: len(inputs)]

    def _compiled_step(
        self, optimizer: Any, max_grad_norm: float | None, pulls: bool, corrects: bool
    ) -> Any:
        import jax

        def step(
            moving: Any, state: Any, still: Any, batch: Any, key: Any, number: Any, further: Any
        ) -> Any:
            inputs, targets, counts = batch

            def loss_at(weights: Any) -> Any:
                own = jax.random.fold_in(key, number)
                return self._loss(self._apply({**still, **weights}, inputs, own), targets, counts)

            loss, gradients = jax.value_and_grad(loss_at)(moving)
            rate, pull, toward, correction = further
            if max_grad_norm is not None:
                gradients = clipped(gradients, max_grad_norm)
            if pulls:
                gradients = {n: g + pull * (moving[n] - toward[n]) for n, g in gradients.items()}
            if corrects:
                gradients = {name: g + correction[name] for name, g in gradients.items()}
            updates, state = optimizer.update(gradients, state, moving)
            return {name: w - rate * updates[name] for name, w in moving.items()}, state, loss

        return jax.jit(step)


def clipped(gradients: dict[str, Any], max_norm: float) -> dict[str, Any]:
    """Cut gradients down to an L2 norm, as ``torch.nn.utils.clip_grad_norm_`` does."""
    import jax.numpy as jnp

    norm = jnp.sqrt(sum(jnp.square(gradient).sum() for gradient in gradients.values()))
    factor = jnp.minimum(max_norm / (norm + 1e-6), 1.0)
    return {name: gradient * factor for name, gradient in gradients.items()}


@cache
def optimizer_of(name: str, momentum: float, weight_decay: float) -> Any:
    """Return optax's optimizer with a learning rate of -1: what is subtracted, times the rate.

    Args:
        name: ``sgd``, ``adam`` or ``adamw``.
        momentum: SGD's, or Adam's first beta.
        weight_decay: Of adamw decoupled, or else added to the gradients.
    """
    import optax

    decay = optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity()
    if name == "sgd":
        return optax.chain(decay, optax.trace(momentum) if momentum else optax.identity())
    adam = optax.scale_by_adam(momentum, ADAM_BETA_2)
    return optax.chain(adam, decay) if name == "adamw" else optax.chain(decay, adam)


def loss_of(task: str) -> Callable[[Any, Any, Any], Any]:
    """Return a task's loss as JAX has it: from outputs, targets and whether each example counts.

    It is the mean over what counts; see ``fedexp.tasks`` for what that is.
    """
    import jax.numpy as jnp
    import optax

    def classification(outputs: Any, targets: Any, counts: Any) -> Any:
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
        return (losses * counts).sum() / counts.sum()

    def next_token(outputs: Any, targets: Any, counts: Any) -> Any:
        valid = (targets != IGNORED) * counts[:, None]
        safe = jnp.where(targets != IGNORED, targets, 0)
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, safe)
        return (losses * valid).sum() / valid.sum()

    def regression(outputs: Any, targets: Any, counts: Any) -> Any:
        squares = jnp.square(outputs.reshape(targets.shape) - targets)
        losses = squares.reshape(len(targets), -1).mean(1)
        return (losses * counts).sum() / counts.sum()

    known = {
        "classification": classification,
        "next_token": next_token,
        "regression": regression,
    }
    return known[task]


def rounded(count: int) -> int:
    """Return the next number that has but three leading bits: itself or up to a quarter more."""
    step = 1 << max(0, (count - 1).bit_length() - 3)
    return -(-count // step) * step


def filled(array: Array, size: int) -> Array:
    """Return a batch with rows of zeros behind it, ``size`` in all."""
    if len(array) == size:
        return array
    return np.concatenate([array, np.zeros((size - len(array), *array.shape[1:]), array.dtype)])
