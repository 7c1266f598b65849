"""What goes wrong with clients: dropout, stragglers and faults, all drawn from the seed."""

from __future__ import annotations

import dataclasses

from fedexp.attacks import Attack
from fedexp.config.schema import Config
from fedexp.core.roles import Update, Updates
from fedexp.core.seeding import derive_rng
from fedexp.core.weights import Weights
from fedexp.data.examples import Examples
from fedexp.federation.events import DROPPED_OUT
from fedexp.training.loop import num_steps


class DroppedOutError(Exception):
    """A sampled client that never answers."""


def drop_out(config: Config, server_round: int, client: int) -> None:
    """Fail with the chance ``clients.dropout``.

    Raises:
        DroppedOutError: If the client fails in this round.
    """
    chance = config.clients.dropout
    if chance and derive_rng(config.seed, "dropout", server_round, client).random() < chance:
        raise DroppedOutError(f"{DROPPED_OUT}{chance}")


def steps_of(config: Config, server_round: int, client: int, num_examples: int) -> int:
    """Return the SGD steps that a client takes in a round.

    A straggler, which a client is with the chance ``clients.stragglers``, trains for a number of epochs
    (or of ``local_steps``) drawn uniformly from those below the full number, as in the experiments of
    FedProx (Li et al., arXiv 1812.06127).
    """
    training, chance = config.training, config.clients.stragglers
    if not chance:
        return num_steps(training, num_examples)
    rng = derive_rng(config.seed, "straggler", server_round, client)
    if rng.random() >= chance:
        return num_steps(training, num_examples)
    if training.local_steps is not None:
        return int(rng.integers(1, training.local_steps))
    fewer = int(rng.integers(1, training.local_epochs))
    return num_steps(dataclasses.replace(training, local_epochs=fewer), num_examples)


def byzantine_clients(config: Config) -> list[int]:
    """Return the clients that are faulty from the first round to the last, in order."""
    size = round(config.clients.byzantine.fraction * config.clients.num)
    rng = derive_rng(config.seed, "byzantine")
    return sorted(rng.choice(config.clients.num, size, replace=False).tolist())


def faulty_examples(
    config: Config, attack: Attack, examples: Examples, num_classes: int, client: int
) -> Examples:
    """Return what a faulty client trains on."""
    rng = derive_rng(
        config.seed, "byzantine", 0, client + 1
    )  # client 0 of round 0 chose the clients
    return attack.examples(examples, num_classes, rng)


def faulty_weights(
    config: Config,
    attack: Attack,
    before: Weights,
    after: Weights,
    server_round: int,
    client: int,
) -> Weights:
    """Return what a faulty client sends in place of its weights.

    Args:
        config: The experiment.
        attack: Which fault.
        before: The weights it was sent.
        after: The weights it trained.
        server_round: Round of the reply.
        client: Partition id.
    """
    rng = derive_rng(config.seed, "byzantine", server_round, client + 1)
    return attack.weights(before, after, rng)


def collude(
    config: Config, attack: Attack, server_round: int, model: Weights, updates: list[Update]
) -> list[Update]:
    """Return a round's updates as they are once the faulty clients have agreed on theirs."""
    faulty = frozenset(byzantine_clients(config))
    if not any(update.client in faulty for update in updates):
        return updates
    rng = derive_rng(config.seed, "byzantine", server_round)
    agreed = attack.collude(model, Updates(updates), faulty, rng)
    return [
        dataclasses.replace(update, weights=agreed[update.client])
        if update.client in agreed and update.client in faulty
        else update
        for update in updates
    ]
