"""Ranges and rules of a configuration: every mistake at once, a line each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from fedexp.config.clients import FULL
from fedexp.config.schema import SCHEMAS, Config, RayBackend
from fedexp.core.options import AUTO
from fedexp.datasets.options import MlpModel, ModelConfig, Resnet18Model
from fedexp.partitions.rules import partition_errors


def validate(config: Config) -> list[str]:
    """Return every mistake in a configuration, one line each; an empty list means it can run."""
    errors = list(_range_errors(config, ""))
    for group in ("dataset", "partition", "model", "strategy", "backend"):
        chosen, entries = getattr(config, group), SCHEMAS[group]
        if chosen.name not in entries:
            errors.append(f"{group}.name must be one of {', '.join(entries)}, got {chosen.name!r}")
        elif entries[chosen.name] is not type(chosen):
            errors.append(
                f"{group}.name must be what was chosen, got {chosen.name!r}; choose it by "
                f"{group}={chosen.name}"
            )
    # Rules that relate options to each other only make sense once each is sound on its own.
    return errors or list(_relation_errors(config))


def _range_errors(node: Any, prefix: str) -> Iterator[str]:
    for item in dataclasses.fields(node):
        value, path = getattr(node, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            yield from _range_errors(value, f"{path}.")
            continue
        choices = item.metadata.get("choices", ())
        if choices and value not in choices:
            yield f"{path} must be one of {', '.join(choices)}, got {value!r}"
        if isinstance(value, str):
            continue  # a word beside numbers, such as batch_size=full, is a matter of relation rules
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{path} must be a finite number, got {value}"
        elif value is not None:
            for sign, bound in item.metadata.get("bounds", ()):
                if not _HOLDS[sign](value, bound):
                    yield f"{path} must be {sign} {bound}, got {value}"


_HOLDS = {
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
}


def _relation_errors(config: Config) -> Iterator[str]:
    spec, clients = config.dataset.spec, config.clients
    if config.name in ("", ".", "..") or "/" in config.name:
        yield f"name must be a word without '/': it names a folder of results/, got {config.name!r}"
    if clients.num > spec.num_train:
        yield (
            f"clients.num must be <= {spec.num_train}, the training images of dataset="
            f"{config.dataset.name}, got {clients.num}"
        )
    yield from partition_errors(config)
    yield from _strategy_errors(config)
    yield from _training_errors(config)
    for option in config.tracking.idle_options():
        yield f"tracking.{option} is W&B's: tracking=wandb (or 'tracking=[wandb,tensorboard]')"
    if isinstance(config.model, MlpModel) and any(width < 1 for width in config.model.hidden):
        yield f"model.hidden must hold widths >= 1, got {list(config.model.hidden)}"
    if isinstance(config.model, Resnet18Model) and 64 % config.model.groups:
        yield f"model.groups must divide 64, resnet18's narrowest layer, got {config.model.groups}"
    if min(spec.shape[1:]) < config.model.min_side:
        yield _too_small(config)


def _too_small(config: Config) -> str:
    height, width = config.dataset.spec.shape[1:]
    side = config.model.min_side
    fit = [
        name
        for name, model in SCHEMAS["model"].items()
        if issubclass(model, ModelConfig) and model.min_side <= min(height, width)
    ]
    return (
        f"model={config.model.name} needs images of at least {side}x{side} pixels, dataset="
        f"{config.dataset.name} has {height}x{width}; these fit: model={', '.join(fit)}"
    )


def _strategy_errors(config: Config) -> Iterator[str]:
    strategy, clients = config.strategy, config.clients
    cohort = clients.cohort_size(clients.fraction_train)
    if cohort < strategy.min_clients:
        yield (
            f"strategy={strategy.name} needs at least {strategy.min_clients} clients in a round "
            f"({strategy.formula}), got {cohort} (clients.num={clients.num}, "
            f"clients.fraction_train={clients.fraction_train})"
        )
    if strategy.counts_steps and config.training.optimizer != "sgd":
        yield (
            f"strategy={strategy.name} divides updates by the SGD steps behind them: "
            f"training.optimizer must be sgd, got {config.training.optimizer!r}"
        )
    if strategy.spoils_buffers and config.model.has_buffers:
        yield (
            f"strategy={strategy.name} measures distances between weights, which the BatchNorm "
            f"statistics of model={config.model.name} would dominate: another model"
        )


def _training_errors(config: Config) -> Iterator[str]:
    training, backend = config.training, config.backend
    if isinstance(training.batch_size, str) and training.batch_size != FULL:
        yield f"training.batch_size must be a number >= 1 or {FULL}, got {training.batch_size!r}"
    if training.amp and config.backend.device == "cpu":
        yield "training.amp needs a GPU (bfloat16): backend.device must not be cpu"
    reserves_none = isinstance(backend, RayBackend) and not backend.num_gpus_per_worker
    if training.amp and backend.device == AUTO and reserves_none:
        yield "training.amp needs a GPU (bfloat16): backend.num_gpus_per_worker must be > 0, got 0.0"
    unit = "local_epochs" if training.local_steps is None else "local_steps"
    if config.clients.stragglers and getattr(training, unit) < 2:
        yield f"clients.stragglers needs training.{unit} >= 2: a straggler trains for fewer"
