"""What Python leaves alone while rounds pass, and what the C library keeps between steps."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np
from fedexp.core import garbage
from fedexp.core.garbage import keep_for_next_step

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        parts = [np.ones(5_000_000, np.uint8) for _ in range(8)]
        del parts
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_for_next_step()
faults()  # the first time, memory is new
print(faults())
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries decide for themselves"
)
def test_memory_that_a_step_gives_back_is_there_for_the_next_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60
    )
    assert int(done.stdout) < 1000, done.stderr  # where it is given back, thousands a step


ROUNDS = """
import gc
from fedexp.core.garbage import settle, undisturbed

with undisturbed():
    print(gc.get_freeze_count() > 0)
print(gc.get_freeze_count())
settle()
with undisturbed():
    pass
print(gc.get_freeze_count() > 0)
"""


def test_what_is_garbage_after_the_rounds_can_be_collected_but_not_what_a_sweep_left_out() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ROUNDS], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["True", "0", "True"], done.stderr
