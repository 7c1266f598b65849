"""The ClientApp of a SuperNode: a client that reads its own data, and nobody else's."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedexp.config.flat import from_flat
from fedexp.config.plugins import load_plugins
from fedexp.config.schema import Config
from fedexp.core.options import ConfigError, FedexpError
from fedexp.core.replies import one_line
from fedexp.data.federated import FederatedData
from fedexp.data.own_rows import answered, asked_in, owner_of, read_own
from fedexp.federation.client import ClientNode
from fedexp.federation.dealing import federate
from fedexp.federation.on_nodes import own_data, place_of
from fedexp.flower.app import client_app
from fedexp.flower.keeping import NodeApp
from fedexp.flower.messages import CONFIG, NUM_PARTITIONS, PARTITION_ID, error_reply

log = logging.getLogger("fedexp")

DATA, CLIENT = "data", "client"
"""In a node's configuration: where its own files are; what its client is called, if not as its file."""

QUESTION, ANSWER = "question", "answer"
"""JSON in a message of a survey, and in its reply."""

SURVEY = {f"query.{kind}": kind for kind in ("told", "summed", "squared")}
"""Kind of a message -> which question of a survey it is."""


class SuperNodeApp(ClientApp):
    """Does what the configuration of the run says, which comes with every message."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message."""
        try:
            if message.metadata.message_type in SURVEY:
                return _surveyed(message, context)
            load_plugins()
            config = from_flat(context.run_config)
            app = _app_of(config, context)
        except (ConfigError, FedexpError) as error:
            return error_reply(message, one_line(str(error)))
        return app(message, context)


def _app_of(config: Config, context: Context) -> ClientApp:
    source: Callable[[], FederatedData] = cache(partial(federate, config))
    if config.dataset.remote:
        path, owner = _own(context)
        client = place_of(config, owner)
        if client is None:
            raise FedexpError(
                f"it holds the files of {owner}, which was not there when the nodes were surveyed: "
                "survey them again (fedexp survey)"
            )
        num = config.clients.num
        context.node_config = {**context.node_config, PARTITION_ID: client, NUM_PARTITIONS: num}
        source = cache(partial(own_data, config, client, path))
    elif PARTITION_ID not in context.node_config:
        raise FedexpError(
            f"dataset={config.dataset.name} is dealt in shares, and this SuperNode does not say which it "
            "holds: --node-config 'partition-id=0 num-partitions=3', or dataset=on_nodes for files of "
            "its own"
        )
    timeout = getattr(config.backend, "timeout", None)
    return client_app(ClientNode(config, source), NodeApp(timeout))


def _own(context: Context) -> tuple[Path, str]:
    """Return where this node's own files are, and what its client is called.

    Raises:
        FedexpError: If it has none.
    """
    path, named = context.node_config.get(DATA), context.node_config.get(CLIENT)
    if path is None:
        raise FedexpError(
            "it has no files of its own: start it with --node-config 'data=\"PATH\"', or choose a "
            "dataset that is dealt in shares"
        )
    return Path(str(path)), owner_of(Path(str(path)), None if named is None else str(named))


def _surveyed(message: Message, context: Context) -> Message:
    """Answer a question of a survey, which is not about any run."""
    told = message.content.get(CONFIG)
    question = told.get(QUESTION) if isinstance(told, ConfigRecord) else None
    path, owner = _own(context)
    try:
        content = json.loads(str(question))
        if not isinstance(content, dict):
            raise FedexpError("the question cannot be read")
        kind = SURVEY[message.metadata.message_type]
        found = answered(read_own(path, owner, asked_in(content)), kind, content)
    except FedexpError:
        raise
    except Exception as error:  # its text may hold what stands in a row
        log.exception("the survey cannot be answered")
        raise FedexpError(f"{owner}: {type(error).__name__}, see the log of its node") from error
    answer = ConfigRecord({ANSWER: json.dumps(found)})
    return Message(RecordDict({CONFIG: answer}), reply_to=message)
