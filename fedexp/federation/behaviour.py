"""What goes wrong with clients: dropout, stragglers and faults, all drawn from the seed."""

from __future__ import annotations

import dataclasses

import numpy as np

from fedexp.config.schema import Config
from fedexp.core.seeding import derive_rng
from fedexp.data.federated import ImageSet
from fedexp.models.networks import Weights
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
        raise DroppedOutError(f"clients.dropout={chance}")


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


def faulty_examples(config: Config, examples: ImageSet, num_classes: int) -> ImageSet:
    """Return what a faulty client trains on: with ``label_flip``, label ``num_classes - 1 - y``."""
    if config.clients.byzantine.kind != "label_flip":
        return examples
    return ImageSet(examples.images, num_classes - 1 - examples.labels)


def faulty_weights(
    config: Config, before: Weights, after: Weights, server_round: int, client: int
) -> Weights:
    """Return what a faulty client sends in place of its weights; integers are sent as they are.

    Args:
        config: ``clients.byzantine`` says which fault, and how large.
        before: The weights it was sent.
        after: The weights it trained.
        server_round: Round of the reply.
        client: Partition id.
    """
    fault = config.clients.byzantine
    if fault.kind == "label_flip":
        return after
    rng = derive_rng(config.seed, "byzantine", server_round, client + 1)  # 0 chose the clients
    sent = dict(after)
    for name, array in before.items():
        if np.issubdtype(array.dtype, np.floating):
            if fault.kind == "sign_flip":
                change = -fault.scale * (after[name] - array)
            else:
                change = fault.scale * rng.standard_normal(array.shape)
            sent[name] = (array + change).astype(array.dtype)
    return sent
