"""torch's libraries are loaded before torch is imported, and nothing is forked meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from fedexp.core import forked, preloading

SCRIPT = """
import json, sys
from pathlib import Path
from fedexp.core import preloading

def mapped():
    return "libtorch_cpu" in Path("/proc/self/maps").read_text()

before = mapped()
preloading.begin()
preloading.wait()
found = [before, mapped(), "torch" in sys.modules]
import torch
print(json.dumps([*found, torch.ones(3).sum().item()]))
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="done on Linux alone")


@linux
def test_libraries_are_loaded_and_torch_is_not() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60
    )
    assert json.loads(done.stdout) == [False, True, False, 3.0], done.stderr


@linux
def test_where_there_is_no_torch_its_import_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(preloading, "find_spec", lambda name: None)
    preloading._load()
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").touch()  # and no libraries
    monkeypatch.undo()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch")
    preloading._load()


def _tell(pipe: Connection, parent: int) -> None:
    pipe.send(parent)


@linux
def test_a_fork_waits_until_they_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    # A fork has no thread but its own: of one that loads, it would keep the lock.
    loaded, seen = threading.Event(), list[bool]()
    loading = threading.Thread(target=loaded.wait)
    loading.start()
    monkeypatch.setattr(preloading, "_loading", [loading])

    def fork() -> None:
        process, pipe = forked.fork(_tell, beside=[])
        seen.append(loaded.is_set())
        pipe.recv()
        process.join()

    forking = threading.Thread(target=fork)
    forking.start()
    forking.join(0.2)
    assert forking.is_alive()
    loaded.set()
    forking.join(30)
    assert seen == [True]
