"""The Flower ``ClientApp``: train, evaluate, and say which partition a node holds.

A client exists only while it is called; what has to last from one call to the next belongs in
Flower's ``Context``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedexp.arrays import to_record, to_weights
from fedexp.config import Config
from fedexp.data import FederatedData
from fedexp.models import build_model, get_weights, set_weights
from fedexp.seeding import derive_seed
from fedexp.training import Evaluator, limited_threads, pick_device, train

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
NUM_EXAMPLES, SERVER_ROUND, PARTITION_ID = "num-examples", "server-round", "partition-id"


def build_client_app(config: Config, source: Callable[[], FederatedData]) -> ClientApp:
    """Build the app that runs on every client.

    Args:
        config: The experiment.
        source: Returns the data, of which the app touches its own partition only. Called where the
            client runs, so it must be cheap after the first call in a process.

    Returns:
        An app whose replies carry ``num-examples`` and, after training, the new weights and
        ``train_loss``; after evaluation, ``loss`` and ``accuracy``.
    """
    app = ClientApp()
    scratch: list[torch.nn.Module] = []

    def load_model(message: Message, device: torch.device) -> torch.nn.Module:
        # Building a module costs as much as a step of training; its weights never outlive a call.
        if not scratch:
            scratch.append(build_model(config.model, config.dataset.spec).to(device))
        record = message.content[ARRAYS]
        assert isinstance(record, ArrayRecord)
        set_weights(scratch[0], to_weights(record))
        return scratch[0]

    @app.train()
    def train_client(message: Message, context: Context) -> Message:
        client, server_round = _client_and_round(message, context)
        data, device = source(), pick_device(config.backend)
        with limited_threads(config.backend.threads):
            model = load_model(message, device)
            result = train(
                model,
                data.train.subset(data.partition.client(client)),
                data.spec,
                config.training,
                derive_seed(config.seed, "train", server_round, client),
                device,
            )
            arrays = to_record(get_weights(model))
        metrics = MetricRecord({NUM_EXAMPLES: result.num_examples, "train_loss": result.loss})
        return Message(RecordDict({ARRAYS: arrays, METRICS: metrics}), reply_to=message)

    @app.evaluate()
    def evaluate_client(message: Message, context: Context) -> Message:
        client, _ = _client_and_round(message, context)
        data, device = source(), pick_device(config.backend)
        examples = data.clients_test.subset(data.client_test.client(client))
        metrics = MetricRecord({NUM_EXAMPLES: len(examples.labels), "loss": 0.0, "accuracy": 0.0})
        if len(examples.labels):  # a reply of no examples has no weight
            with limited_threads(config.backend.threads):
                model = load_model(message, device)
                predictions = Evaluator(examples, data.spec, device).predict(model)
            metrics["loss"] = float(predictions.losses.mean())
            metrics["accuracy"] = float((predictions.labels == examples.labels).mean())
        return Message(RecordDict({METRICS: metrics}), reply_to=message)

    @app.query()
    def which_partition(message: Message, context: Context) -> Message:
        answer = ConfigRecord({PARTITION_ID: int(context.node_config[PARTITION_ID])})
        return Message(RecordDict({CONFIG: answer}), reply_to=message)

    return app


def _client_and_round(message: Message, context: Context) -> tuple[int, int]:
    instructions = message.content[CONFIG]
    assert isinstance(instructions, ConfigRecord)
    return int(context.node_config[PARTITION_ID]), int(str(instructions[SERVER_ROUND]))
