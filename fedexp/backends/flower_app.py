"""An experiment as a Flower app: what ``flwr run`` bundles and sends to SuperLink and SuperNodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version

from fedexp.config.backend import DeploymentBackend
from fedexp.config.flat import Value, flat
from fedexp.config.schema import Config

PACKAGE = "fedexp_app"
"""The package in an app; its name is part of what ``pyproject.toml`` says."""

_SERVER = '''"""The ServerApp: fedexp's round loop, where `flwr run` starts it."""

from fedexp.serving import ServedApp

app = ServedApp()
'''

_DRIVEN = '''"""The ServerApp of a run that the program `fedexp` drives itself."""

from fedexp.backends.deployment import DrivenApp

app = DrivenApp()
'''

_CLIENT = '''"""The ClientApp: what a SuperNode does, with its own data."""

from fedexp.backends.node import SuperNodeApp

app = SuperNodeApp()
'''


def app_files(config: Config, *, driven: bool = False) -> dict[str, str]:
    """Return an experiment as a Flower app.

    Args:
        config: The experiment, checked.
        driven: Whether the program that submits it is its ServerApp.

    Returns:
        Path in the app's folder -> text.
    """
    backend = config.backend
    assert isinstance(backend, DeploymentBackend)
    # How a program reaches the SuperLink is no business of the machines that it reaches.
    told = DeploymentBackend(
        device=backend.device,
        threads=backend.threads,
        portable=backend.portable,
        timeout=backend.timeout,
    )
    return _files(flat(replace(config, backend=told)), driven=driven)


def survey_files() -> dict[str, str]:
    """Return the app that asks nodes what they hold: no experiment, as nobody can say one yet."""
    return _files({}, driven=True)


def _files(options: Mapping[str, Value], *, driven: bool) -> dict[str, str]:
    return {
        "pyproject.toml": _project(options),
        f"{PACKAGE}/__init__.py": '"""An experiment of fedexp, as a Flower app."""\n',
        f"{PACKAGE}/server.py": _DRIVEN if driven else _SERVER,
        f"{PACKAGE}/client.py": _CLIENT,
    }


def _project(values: Mapping[str, Value]) -> str:
    options = "\n".join(f"{name} = {_toml(value)}" for name, value in values.items())
    return f"""\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "fedexp-app"
version = "1.0.0"
description = "An experiment of fedexp"
license = "Apache-2.0"
# Flower is to install nothing: fedexp {version("fedexp")} is on every machine already.
dependencies = []

[tool.hatch.build.targets.wheel]
packages = ["{PACKAGE}"]

[tool.flwr.app]
publisher = "fedexp"

[tool.flwr.app.components]
serverapp = "{PACKAGE}.server:app"
clientapp = "{PACKAGE}.client:app"

# Every option of the experiment; what is neither number nor word stands in quotes, as YAML.
# flwr run . --run-config 'rounds=5 training.learning_rate=0.05'
[tool.flwr.app.config]
{options}
"""


def _toml(value: Value) -> str:
    """Write a value as TOML, whose numbers and texts are JSON's, but for one sign."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
