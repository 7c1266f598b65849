"""What a machine lacks is said before anything is started or written."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedexp import api
from fedexp.backends import resources
from fedexp.config.backend import BackendConfig, FlowerBackend, InlineBackend, RayBackend
from fedexp.core.machine import usable_cpus
from fedexp.core.options import FedexpError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(resources, "_gpus", lambda: request.param)


@pytest.mark.parametrize("gpus", [0], indirect=True)
@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        (InlineBackend(device="cuda"), "backend.device=cuda: torch finds no GPU"),
        (RayBackend(device="cuda", address="there:1"), "backend.device=cuda: torch finds no GPU"),
        (RayBackend(num_gpus_per_worker=1.0), "backend.num_gpus_per_worker=1 can never be met"),
        (FlowerBackend(num_gpus_per_worker=0.5), "backend.num_gpus_per_worker=0.5 can never be"),
        (RayBackend(num_cpus_per_worker=1e6), "backend.num_cpus_per_worker=1e+06 can never be met"),
    ],
)
def test_what_is_not_there_is_refused(backend: BackendConfig, reason: str, gpus: None) -> None:
    with pytest.raises(FedexpError) as told:
        resources.ensure(backend)
    assert str(told.value).startswith(reason)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("gpus", [1], indirect=True)
@pytest.mark.parametrize(
    "backend",
    [
        InlineBackend(device="cuda"),
        RayBackend(num_gpus_per_worker=0.25, device="cuda"),
        RayBackend(num_cpus_per_worker=float(usable_cpus())),
        RayBackend(num_cpus_per_worker=1e6, num_gpus_per_worker=8.0, address="there:1"),
    ],
)
def test_what_is_there_may_be_asked_for(backend: BackendConfig, gpus: None) -> None:
    resources.ensure(backend)


@pytest.mark.parametrize("gpus", [0], indirect=True)
def test_nothing_is_written_where_a_gpu_is_missing(tmp_path: Path, gpus: None) -> None:
    folder = tmp_path / "run"
    for words in (["backend=inline", "backend.device=cuda"], ["backend.num_gpus_per_worker=1"]):
        with pytest.raises(FedexpError, match="GPU"):
            api.run("mode=train", *words, folder=folder)
    assert list(tmp_path.iterdir()) == []
