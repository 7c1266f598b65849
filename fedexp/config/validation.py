"""Ranges and rules of a configuration: every mistake at once, a line each.

Rules between the options of one page stand on that page (``errors``); here are those that follow from
what pages declare, and those of what is no page.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedexp import attacks, metrics, strategies, tasks
from fedexp.config.frameworks import framework_errors
from fedexp.config.populations import pairing_errors, population_errors
from fedexp.config.schema import GROUPS, Config
from fedexp.config.training import FULL
from fedexp.core.options import AUTO, range_errors
from fedexp.core.registry import located
from fedexp.data.held_out import held_by_clients, num_held_out


def validate(config: Config) -> list[str]:
    """Return every mistake in a configuration, one line each; an empty list means it can run."""
    errors = list(range_errors(config, ""))
    for group, registry in GROUPS.items():
        chosen, pages = getattr(config, group), registry.pages()
        if chosen.name not in pages:
            errors.append(f"{group}.name must be one of {', '.join(pages)}, got {chosen.name!r}")
        elif pages[chosen.name].__qualname__ != type(chosen).__qualname__:
            errors.append(
                f"{group}.name must be what was chosen, got {chosen.name!r}; choose it by "
                f"{group}={chosen.name}"
            )
    task = config.dataset.task
    if task not in tasks.choices():
        errors.append(
            f"dataset={config.dataset.name}: its page's task must be one of "
            f"{', '.join(tasks.choices())}, got {task!r}"
        )
        return errors
    errors += _word_errors(config)
    # Rules that relate options to each other only make sense once each is sound on its own.
    return errors or list(_relation_errors(config))


def _word_errors(config: Config) -> Iterator[str]:
    """Words that are looked up in registries."""
    task, known = config.task, metrics.choices()
    for name in config.metrics:
        if name not in known:
            yield f"metrics must be among {', '.join(_judging(task))}, got {name!r}"
        elif task.name not in metrics.get(name).tasks:
            yield (
                f"metrics: {name} does not judge {task.words}, the task of dataset="
                f"{config.dataset.name}; these do: {', '.join(_judging(task))}"
            )
    if config.stop.metric not in config.measured:
        yield _not_measured("stop.metric", config.stop.metric, config)
    further = (f"best_{task.headline}", "worst10")
    if config.objective not in (*config.measured, *further):
        yield _not_measured("objective", config.objective, config, further)
    byzantine = config.clients.byzantine
    if byzantine.kind not in attacks.choices():
        yield (
            f"clients.byzantine.kind must be one of {', '.join(attacks.choices())}, got "
            f"{byzantine.kind!r}"
        )
        return
    page = attacks.get(byzantine.kind)
    own = [item.name for item in dataclasses.fields(page) if item.name not in ("name", "scale")]
    strangers = [name for name in byzantine.options if name not in own]
    for name in strangers:
        yield (
            f"clients.byzantine.options.{name}: {byzantine.kind} has no such option; it has "
            f"{', '.join(own) or 'none beside clients.byzantine.scale'}"
        )
    if not strangers:
        yield from _attack_errors(byzantine.attack())


def _attack_errors(attack: attacks.Attack) -> Iterator[str]:
    """Options of an attack come as a mapping, whose types nobody has looked at."""
    prefix = "clients.byzantine.options."
    try:
        OmegaConf.structured(attack)
    except OmegaConfBaseException as error:
        yield f"{prefix}{error.full_key}: {str(error).splitlines()[0]}"
        return
    lines = range_errors(attack, prefix)
    yield from (line for line in lines if not line.startswith(f"{prefix}scale "))


def _not_measured(option: str, value: str, config: Config, further: Sequence[str] = ()) -> str:
    others = [name for name in _judging(config.task) if name not in config.measured]
    hint = f"; metrics=[{value}] adds it" if value in others else ""
    return f"{option} must be one of {', '.join((*config.measured, *further))}, got {value!r}{hint}"


def _judging(task: tasks.Task) -> list[str]:
    return [name for name, page in metrics.REGISTRY.pages().items() if task.name in page.tasks]


def _relation_errors(config: Config) -> Iterator[str]:
    if config.dataset.remote and not config.dataset.spec.owners:  # nobody knows anything yet
        yield from _own_errors("dataset", config)
        return
    unpaired = [*pairing_errors(config)]
    if unpaired:  # what else there is to say would be about a partition that has nothing to deal
        yield from unpaired
        return
    if config.name in ("", ".", "..") or not config.name.isprintable() or {*"/\\"} & {*config.name}:
        yield (
            "name must be a word without slashes and control characters: it names a folder of "
            f"results/, got {config.name!r}"
        )
    if config.save_every % config.evaluate_every:
        yield (
            f"save_every must be a multiple of evaluate_every={config.evaluate_every}: models are tested "
            f"in these rounds, got {config.save_every}"
        )
    yield from population_errors(config)
    yield from _remote_errors(config)
    yield from _validation_errors(config)
    yield from _own_errors("dataset", config)
    yield from _task_errors(config)
    yield from _strategy_errors(config)
    yield from _own_errors("strategy", config)
    yield from _training_errors(config)
    yield from _own_errors("backend", config)
    for option in config.tracking.idle_options():
        yield f"tracking.{option} belongs to W&B: set tracking=wandb (or 'tracking=[wandb,tensorboard]')"
    yield from _own_errors("model", config)
    yield from _model_errors(config)
    yield from framework_errors(config)


def _remote_errors(config: Config) -> Iterator[str]:
    """What a server cannot do that has no examples, only nodes that have."""
    if not config.dataset.remote:
        return
    named, clients = f"dataset={config.dataset.name}", config.clients
    if not config.backend.has_own_data:
        yield (
            f"{named}: the examples lie on SuperNodes: backend=deployment; backend={config.backend.name} "
            "reads files that lie together, by dataset=files"
        )
    if config.mode != "train":
        yield f"mode={config.mode} shows examples, which with {named} only the nodes have"
    if not config.partition.by_owner:
        yield (
            f"partition={config.partition.name} deals examples, which with {named} only the nodes have: "
            "partition=given"
        )
    if config.strategy.kind == strategies.CENTRALIZED:
        yield (
            f"strategy={config.strategy.name} trains on the examples of all clients in one place; with "
            f"{named} there is no such place"
        )
    if config.dataset.validation:
        yield (
            f"dataset.validation={config.dataset.validation:g}: {named} holds nothing out yet; leave it "
            "out"
        )
    if 0 < clients.fraction_evaluate < 1:
        yield (
            f"clients.fraction_evaluate={clients.fraction_evaluate:g}: with {named} every client tests "
            "every round, because nobody else can; leave it out"
        )
    for option in ("unseen", "tuned_steps"):
        if getattr(clients, option):
            yield (
                f"clients.{option}={getattr(clients, option):g}: its models are tested by the server, "
                f"which with {named} has no examples; leave it out"
            )


def _validation_errors(config: Config) -> Iterator[str]:
    share, num_train = config.dataset.validation, config.dataset.spec.num_train
    # Of a population, nobody counts the examples before they are drawn.
    if share and config.dataset.population is None and not num_held_out(share, num_train):
        yield (
            f"dataset.validation={share:g} of {num_train} training examples is less than one: at least "
            f"{1 / num_train:.2g}, or 0"
        )
    if (
        share
        and config.objective == "worst10"
        and not held_by_clients(share, config.dataset.validation_by)
    ):
        yield (
            "objective=worst10 is about the clients' own examples: dataset.validation_by must be clients "
            f"or both, got {config.dataset.validation_by!r}"
        )


def _task_errors(config: Config) -> Iterator[str]:
    """What the dataset's task does not allow for."""
    task, kind, partition = config.task, config.clients.byzantine.kind, config.partition
    if partition.can_deal(task.told_apart_by):
        yield from _own_errors("partition", config)
    else:
        pages = GROUPS["partition"].pages().items()
        drawn = config.dataset.population is not None
        fit = [
            name
            for name, page in pages
            if page.can_deal(task.told_apart_by) and page.population == drawn
        ]
        yield (
            f"partition={partition.name} deals examples by their labels, which dataset="
            f"{config.dataset.name} has not: its task is {task.words}; these fit: partition="
            f"{', '.join(fit)}"
        )
    if config.clients.byzantine.fraction and not tasks.fits(attacks.get(kind).tasks, task.name):
        fit = [k for k, p in attacks.REGISTRY.pages().items() if tasks.fits(p.tasks, task.name)]
        yield (
            f"clients.byzantine.kind={kind} acts on labels, which dataset={config.dataset.name} has "
            f"not: its task is {task.words}; these fit: {', '.join(fit)}"
        )


def _own_errors(group: str, config: Config) -> Iterator[str]:
    """Ask a page for the rules that it has itself."""
    page = getattr(config, group)
    try:
        yield from page.errors(config)
    except Exception as error:
        if type(page).__module__.startswith("fedexp."):
            raise
        yield f"{group}={page.name}: errors() raised {located(type(page), error)}"


def _model_errors(config: Config) -> Iterator[str]:
    model, dataset, pages = config.model, config.dataset, GROUPS["model"].pages()
    fit = [name for name, page in pages.items() if page.takes(dataset.kind, dataset.task)]
    if model.kinds and dataset.kind not in model.kinds:
        yield (
            f"model={model.name} takes inputs of kind {' or '.join(model.kinds)}, dataset="
            f"{dataset.name} has {dataset.kind}; these fit: model={', '.join(fit)}"
        )
        return
    if not model.takes(dataset.kind, dataset.task):
        words = " and ".join(tasks.get(name).words for name in model.tasks)
        yield (
            f"model={model.name} is for {words}, the task of dataset={dataset.name} is "
            f"{config.task.words}; these fit: model={', '.join(fit)}"
        )
        return
    if dataset.kind == "image" and min(dataset.spec.shape[1:]) < model.min_side:
        height, width = dataset.spec.shape[1:]
        fit = [name for name in fit if pages[name].min_side <= min(height, width)]
        yield (
            f"model={model.name} needs images of at least {model.min_side}x{model.min_side} pixels, "
            f"dataset={dataset.name} has {height}x{width}; these fit: model={', '.join(fit)}"
        )


def _strategy_errors(config: Config) -> Iterator[str]:
    strategy, clients = config.strategy, config.clients
    if clients.cohort < strategy.min_clients:
        yield (
            f"strategy={strategy.name} needs at least {strategy.min_clients} clients in a round "
            f"({strategy.formula}), got {clients.cohort} (clients.num={clients.num}, "
            f"clients.fraction_train={clients.fraction_train})"
        )
    if clients.min_success > clients.cohort:
        yield (
            f"clients.min_success must be <= {clients.cohort}, the clients of a round (clients.num="
            f"{clients.num}, clients.fraction_train={clients.fraction_train}), got {clients.min_success}"
        )
    if strategy.needs_sgd and config.training.optimizer != "sgd":
        yield (
            f"strategy={strategy.name} divides updates by the SGD steps behind them: "
            f"training.optimizer must be sgd, got {config.training.optimizer!r}"
        )
    if strategy.measures_distances and config.model.has_buffers:
        yield (
            f"strategy={strategy.name} measures distances between weights, which the BatchNorm "
            f"statistics of model={config.model.name} would dominate: choose another model"
        )


def _training_errors(config: Config) -> Iterator[str]:
    training, backend = config.training, config.backend
    if isinstance(training.batch_size, str) and training.batch_size != FULL:
        yield f"training.batch_size must be a number >= 1 or {FULL}, got {training.batch_size!r}"
    if training.amp and config.backend.device == "cpu":
        yield "training.amp needs a GPU (bfloat16): backend.device must not be cpu"
    if training.amp and backend.device == AUTO and not backend.reserves_gpu:
        yield "training.amp needs a GPU (bfloat16): backend.num_gpus_per_worker must be > 0, got 0.0"
    every = config.checkpoint.every
    if isinstance(every, str) and every != AUTO:
        yield f"checkpoint.every must be a number of rounds >= 0 or {AUTO}, got {every!r}"
    unit = "local_epochs" if training.local_steps is None else "local_steps"
    if config.clients.stragglers and getattr(training, unit) < 2:
        yield f"clients.stragglers needs training.{unit} >= 2: a straggler trains for fewer"
