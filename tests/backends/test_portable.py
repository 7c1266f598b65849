from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.helpers import config

from fedexp import runner
from fedexp.config.backend import InlineBackend
from fedexp.core import forked
from fedexp.core.machine import PORTABLE, compute_portably, has_avx2
from fedexp.core.options import FedexpError
from fedexp.training.device import pick_device

REFERENCES = {
    (): "5ec1640990195dc7aecae3b9e7862f7c77538a05927838ae4c0d5488cb773c55",
    (
        *("strategy=fedadam", "model=cnn", "partition=dirichlet", "rounds=2"),
        "training.local_steps=3",
    ): "14d0552df9a4fe9e8911ecdce8e95d5414053cbf500cd773283953537ca9f6e4",
    (
        *("strategy=scaffold", "dataset=breast_cancer", "model=logistic", "partition=iid"),
        *("clients.num=4", "rounds=2"),
    ): "3a9ae9bc1df7683d83789d845dcea7912f77daa315043682a7c06ddac6f6960e",
    (
        *("dataset=toy_text", "model=char_lstm", "partition=iid", "clients.num=3", "rounds=1"),
        "training.local_steps=2",
    ): "573bfe189df91ff9884f5d865eb627e717733fb2b42840a8505f2ee6f7ef4c5d",
    (
        *("dataset=toy_words", "model=transformer", "partition=iid", "clients.num=3", "rounds=1"),
        "training.local_steps=2",
    ): "c6ad924317d0f4608741e0f8161b8bd964154761fd090201384a4a86325f146b",
}
"""Command -> model_sha256, on all x86-64 machines that have AVX2, with the version of torch below."""

MADE_WITH = "2.14.1"


here = pytest.mark.skipif(not has_avx2(), reason="portable bits need an x86-64 machine with AVX2")
same_torch = pytest.mark.skipif(
    torch.__version__.split("+")[0] != MADE_WITH, reason=f"the bits are those of torch {MADE_WITH}"
)


def _run(folder: Path, *overrides: str) -> tuple[str, str]:
    """Run a command in a process of its own; return the model's hash and what torch computed with."""
    command = [sys.executable, "-m", "fedexp", "backend.portable=true", *overrides]
    unset = {key: value for key, value in os.environ.items() if key not in PORTABLE}
    subprocess.run(
        [*command, f"hydra.run.dir={folder}"],
        check=True,
        capture_output=True,
        env=unset,
    )
    summary, environment = (
        json.loads((folder / name).read_text()) for name in ("summary.json", "environment.json")
    )
    return summary["model_sha256"], environment["cpu_capability"]


@here
@same_torch
@pytest.mark.parametrize(
    "overrides",
    [pytest.param(o, marks=[pytest.mark.slow] if o else []) for o in REFERENCES],
    ids=lambda o: o[0] if o else "default",
)
def test_portable_runs_have_the_bits_of_every_machine(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    assert _run(tmp_path / "run", "backend=inline", *overrides) == (REFERENCES[overrides], "AVX2")


@here
@same_torch
@pytest.mark.slow
@pytest.mark.parametrize("backend", [["backend.workers=2"], ["backend=flower"]])
def test_workers_compute_portably(backend: list[str], tmp_path: Path) -> None:
    assert _run(tmp_path / "run", *backend) == (REFERENCES[()], "AVX2")


@here
def test_a_process_that_has_computed_is_not_portable(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.ones(3).exp()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for name in PORTABLE:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(FedexpError, match="another process"):
        pick_device(InlineBackend(portable=True))
    assert not PORTABLE.keys() & os.environ.keys()
    monkeypatch.setenv("MKL_CBWR", "AVX512")
    with pytest.raises(FedexpError, match="MKL_CBWR=COMPATIBLE, which is AVX512"):
        compute_portably()


@here
def test_a_run_after_one_that_was_not_portable_is_refused() -> None:
    assert forked.has_trained  # with all that the processor has, as far as anybody knows
    with pytest.raises(FedexpError, match="another process"):
        runner.ensure([config(backend=InlineBackend(portable=True))])
    with pytest.raises(FedexpError, match="the same for all runs"):
        runner.ensure([config(backend=InlineBackend(portable=now)) for now in (True, False)])


def test_a_machine_without_avx2_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    (tmp_path / "old").write_text("processor: 0\nflags\t\t: fpu sse4_2 avx fma\n")
    (tmp_path / "new").write_text("processor: 0\nflags\t\t: fpu sse4_2 avx fma avx2\n")
    assert [has_avx2(tmp_path / name) for name in ("old", "new", "none")] == [False, True, False]
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    has_avx2.cache_clear()
    try:
        with pytest.raises(FedexpError, match="AVX2"):
            compute_portably()
    finally:
        has_avx2.cache_clear()
