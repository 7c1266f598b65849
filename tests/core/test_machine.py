"""CPUs and memory that a container may see, and those that it is given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedexp.core import machine
from fedexp.core.machine import cpu_quota, usable_cpus, usable_memory

SECOND = {"proc/self/cgroup": "0::/a/b\n"}
FIRST = {"proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n3:cpuset:/docker/x\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, None),
        (SECOND, None),
        ({**SECOND, "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, None),
        ({**SECOND, "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 1.5),
        ({**SECOND, "sys/fs/cgroup/cpu.max": "200000 100000"}, 2.0),  # its own group is the top
        (
            {
                **SECOND,
                "sys/fs/cgroup/a/b/cpu.max": "800000 100000",
                "sys/fs/cgroup/a/cpu.max": "300000 100000",
            },
            3.0,
        ),
        ({"proc/self/cgroup": "0::/../x", "sys/fs/cgroup/cpu.max": "100000 100000"}, 1.0),
        (
            {
                **FIRST,
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000",
            },
            0.5,
        ),
        (
            {
                **FIRST,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        ({**SECOND, "sys/fs/cgroup/a/b/cpu.max": "much"}, None),
    ],
)
def test_quotas_are_read_as_linux_keeps_them(
    files: dict[str, str], cpus: float | None, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cpu_quota(tmp_path) == cpus


@pytest.mark.parametrize(
    ("seen", "quota", "usable"), [(8, None, 8), (8, 2.5, 2), (8, 0.5, 1), (1, 4.0, 1)]
)
def test_the_smaller_of_what_is_seen_and_given_counts(
    seen: int, quota: float | None, usable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(seen)), raising=False)
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert usable_cpus() == usable


FREE = {"proc/meminfo": "MemTotal:  9000 kB\nMemFree:  10 kB\nMemAvailable:    2000 kB\n"}


@pytest.mark.parametrize(
    ("files", "memory"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal:  9000 kB\n"}, None),
        (FREE, 2_048_000),
        ({**FREE, **SECOND, "sys/fs/cgroup/a/b/memory.max": "max\n"}, 2_048_000),
        ({**FREE, **SECOND, "sys/fs/cgroup/a/b/memory.max": "3000000\n"}, 2_048_000),
        ({**FREE, **SECOND, "sys/fs/cgroup/a/memory.max": "1000000\n"}, 1_000_000),
        (
            {
                **FREE,
                "proc/self/cgroup": "7:memory:/docker/x\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "500000\n",
            },
            500_000,
        ),
    ],
)
def test_memory_is_what_is_free_or_what_a_container_is_given(
    files: dict[str, str], memory: int | None, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert usable_memory(tmp_path) == memory
