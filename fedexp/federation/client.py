"""The Flower ``ClientApp``: train, evaluate, and say which partition a node holds.

A client exists only while it is called; what has to last from one call to the next belongs in
Flower's ``Context``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedexp.config.schema import Config
from fedexp.core.seeding import derive_seed
from fedexp.data.federated import FederatedData, ImageSet
from fedexp.federation.behaviour import (
    byzantine_clients,
    drop_out,
    faulty_examples,
    faulty_weights,
    steps_of,
)
from fedexp.flower.arrays import to_record, weights_in
from fedexp.flower.protocol import (
    ARRAYS,
    CONFIG,
    CONTROL,
    GLOBAL_LOSS,
    GRADIENT_MASS,
    METRICS,
    NUM_EXAMPLES,
    PARTITION_ID,
    PARTITION_IDS,
    PROXIMAL_MU,
    SERVER_ROUND,
    TRAIN_LOSS,
)
from fedexp.models.networks import build_model, get_weights, set_weights
from fedexp.strategies.scaffold import ClientControl
from fedexp.training.loop import (
    Evaluator,
    Work,
    gradient_mass,
    limited_threads,
    pick_device,
    train,
    union_steps,
)


def build_client_app(config: Config, source: Callable[[], FederatedData]) -> ClientApp:
    """Build the app that runs on every client.

    Args:
        config: The experiment.
        source: Returns the data, of which the app touches its own partition only. Called where the
            client runs, so it must be cheap after the first call in a process.

    Returns:
        An app whose replies carry ``num-examples`` and, after training, the new weights and
        ``train_loss``; after evaluation, ``loss`` and ``accuracy``. ``fedexp.flower.protocol`` lists what
        else it can be asked for.
    """
    app = ClientApp()
    node = _Node(config, source)

    @app.train()
    def train_client(message: Message, context: Context) -> Message:
        with limited_threads(config.backend.threads):
            return Message(node.train(message, context), reply_to=message)

    @app.evaluate()
    def evaluate_client(message: Message, context: Context) -> Message:
        with limited_threads(config.backend.threads):
            return Message(node.evaluate(message, context), reply_to=message)

    @app.query()
    def which_partition(message: Message, context: Context) -> Message:
        answer = ConfigRecord({PARTITION_ID: int(context.node_config[PARTITION_ID])})
        return Message(RecordDict({CONFIG: answer}), reply_to=message)

    return app


class _Node:
    """What clients do; holds nothing of any one client."""

    def __init__(self, config: Config, source: Callable[[], FederatedData]) -> None:
        self._config, self._source = config, source
        self._faulty = frozenset(byzantine_clients(config))
        self._scratch: torch.nn.Module | None = None
        self._state: dict[str, torch.Tensor] = {}

    def train(self, message: Message, context: Context) -> RecordDict:
        config, data = self._config, self._source()
        client, server_round, instructions = _addressed(message, context)
        union = _union(instructions)
        if not union:  # nothing goes wrong with the upper reference
            drop_out(config, server_round, client)
        faulty = not union and client in self._faulty
        examples = data.train_images(union or [client])
        if faulty:
            examples = faulty_examples(config, examples, data.spec.num_classes)
        count = len(examples.labels)
        if union:
            steps = union_steps(config.training, count, len(union))
        else:
            steps = steps_of(config, server_round, client, count)
        mass = gradient_mass(steps, config.training.momentum)

        model = self._load_model(message)
        metrics = MetricRecord({NUM_EXAMPLES: count})
        if instructions.get(GLOBAL_LOSS):
            metrics[GLOBAL_LOSS], _ = self._judge(model, examples, data)
        if instructions.get(GRADIENT_MASS):
            metrics[GRADIENT_MASS] = mass
        drift = ClientControl(message, context, model) if CONTROL in message.content else None
        rate = config.training.rate(server_round)
        correction = drift.correction(self._device) if drift else None
        work = Work(steps, rate, float(str(instructions.get(PROXIMAL_MU, 0.0))), correction)
        seed = derive_seed(config.seed, "train", server_round, client)
        changes = config.dataset.augmentation
        result = train(
            model, examples, data.spec, config.training, work, seed, self._device, changes
        )
        metrics[TRAIN_LOSS] = result.loss

        content = RecordDict({METRICS: metrics})
        before, after = weights_in(message.content, ARRAYS), get_weights(self._state)
        if drift:
            content[CONTROL] = drift.renew(before, after, rate * mass)
        if faulty:
            after = faulty_weights(config, before, after, server_round, client)
        content[ARRAYS] = to_record(after)
        return content

    def evaluate(self, message: Message, context: Context) -> RecordDict:
        client, _, _ = _addressed(message, context)
        data = self._source()
        examples = data.clients_test.subset(data.client_test.client(client))
        metrics = MetricRecord({NUM_EXAMPLES: len(examples.labels), "loss": 0.0, "accuracy": 0.0})
        if len(examples.labels):  # a reply of no examples has no weight
            model = self._load_model(message)
            metrics["loss"], metrics["accuracy"] = self._judge(model, examples, data)
        return RecordDict({METRICS: metrics})

    def _judge(
        self, model: torch.nn.Module, examples: ImageSet, data: FederatedData
    ) -> tuple[float, float]:
        predictions = Evaluator(examples, data.spec, self._device).predict(model)
        right = predictions.labels == examples.labels
        return float(predictions.losses.mean()), float(np.mean(right))

    @cached_property
    def _device(self) -> torch.device:
        return pick_device(self._config.backend)  # asked where the client runs

    def _load_model(self, message: Message) -> torch.nn.Module:
        # Building a module costs as much as a step of training; its weights never outlive a call.
        if self._scratch is None:
            spec = self._config.dataset.spec
            self._scratch = build_model(self._config.model, spec).to(self._device)
            self._state = self._scratch.state_dict()
        set_weights(self._state, weights_in(message.content, ARRAYS))
        return self._scratch


def _addressed(message: Message, context: Context) -> tuple[int, int, ConfigRecord]:
    instructions = message.content[CONFIG]
    assert isinstance(instructions, ConfigRecord)
    client = int(context.node_config[PARTITION_ID])
    return client, int(str(instructions[SERVER_ROUND])), instructions


def _union(instructions: ConfigRecord) -> list[int]:
    """Return whose images ``centralized`` wants trained on; nobody's in federated training."""
    clients = instructions.get(PARTITION_IDS, [])
    assert isinstance(clients, list)
    return [int(client) for client in clients]
