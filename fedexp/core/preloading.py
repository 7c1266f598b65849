"""torch's libraries, which the system loads while the program works out what a command asks for.

``import torch`` spends a fifth of its time there. It helps while Python runs code alone: whoever imports
a library meanwhile waits. :mod:`fedexp.core.forked` forks nothing meanwhile: a fork would wait for ever
to load one.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

_loading: list[threading.Thread] = []


def begin() -> None:
    """Load them on a thread, unless they are there or that has begun."""
    if sys.platform == "linux" and "torch" not in sys.modules and not _loading:
        # No daemon: to exit in the middle would be a segmentation fault.
        _loading.append(threading.Thread(target=_load))
        _loading[0].start()


def wait() -> None:
    """Wait until they are loaded, if that has begun."""
    for thread in _loading:
        thread.join()


def _load() -> None:
    spec = find_spec("torch")
    # Where the user says which libraries to take, torch has an order of its own.
    if spec is None or spec.origin is None or "LD_LIBRARY_PATH" in os.environ:
        return
    folder = Path(spec.origin).with_name("lib")
    system = ctypes.CDLL(None)  # ctypes keeps Python waiting while it loads, but not while it calls
    system.dlopen.restype, system.dlopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
    for name, mode in (("libtorch_global_deps.so", os.RTLD_GLOBAL), ("libtorch.so", 0)):
        if not system.dlopen(os.fsencode(folder / name), os.RTLD_LAZY | mode):
            return  # import torch says what is wrong with it
