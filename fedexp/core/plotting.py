"""matplotlib, whatever the environment says about windows: what is drawn here goes into files."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

VARIABLE = "MPLBACKEND"


def import_matplotlib() -> Any:
    """Import matplotlib, also where ``MPLBACKEND`` names a backend that is not there.

    A notebook sets that variable for every program which is started from it, and matplotlib then refuses
    to be imported where the notebook's backend is not installed. A backend that is there stays in charge
    of the windows: a notebook goes on to show its figures.

    Returns:
        The module.
    """
    if "matplotlib" in sys.modules:
        return sys.modules["matplotlib"]
    told = os.environ.pop(VARIABLE, None)
    try:
        matplotlib = import_module("matplotlib")
    finally:
        if told is not None:
            os.environ[VARIABLE] = told
    if told:
        with suppress(ValueError):  # not there: the default then
            matplotlib.rcParams["backend"] = told  # as matplotlib does itself
    return matplotlib
