"""The ClientApp of a SuperNode: a client that reads its own data, and nobody else's."""

from __future__ import annotations

from functools import cache, partial

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedexp.config.flat import from_flat
from fedexp.config.plugins import load_plugins
from fedexp.config.schema import Config
from fedexp.core.options import ConfigError, FedexpError
from fedexp.core.replies import one_line
from fedexp.federation.client import ClientNode
from fedexp.federation.dealing import federate
from fedexp.flower.app import client_app
from fedexp.flower.keeping import NodeApp
from fedexp.flower.messages import error_reply


class SuperNodeApp(ClientApp):
    """Does what the configuration of the run says, which comes with every message."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message."""
        try:
            load_plugins()
            config = from_flat(context.run_config)
            app = _app_of(config)
        except (ConfigError, FedexpError) as error:
            return error_reply(message, one_line(str(error)))
        return app(message, context)


def _app_of(config: Config) -> ClientApp:
    timeout = getattr(config.backend, "timeout", None)
    return client_app(ClientNode(config, cache(partial(federate, config))), NodeApp(timeout))
