"""The model in MLX that docs/extend.md prints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.bringing import bringing
from support.documents import ROOT, files_in
from support.programs import program

from fedexp.config.training import TrainingConfig
from fedexp.core.roles import Order
from fedexp.federation.client import ClientNode
from fedexp.federation.dealing import federate
from fedexp.federation.job import ClientJob
from fedexp.models.mlp import Mlp
from fedexp.testing import conforms
from fedexp.testing.runs import small


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (text,) = [text for text in files_in(ROOT / "docs" / "extend.md") if "mlx.core" in text]
    (tmp_path / "in_mlx.py").write_text(text)
    return tmp_path / "in_mlx.py"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, script: Path) -> Iterator[Any]:
    with bringing(monkeypatch) as bring:
        yield bring(script).MlxMlp


def test_the_page_conforms(page: Any) -> None:
    conforms(page(hidden=8), ("inline",))


@pytest.mark.parametrize("asked", [{}, {"pull": 0.5, "only": ["1.weight"]}])
def test_its_steps_are_torchs(page: Any, asked: dict[str, Any]) -> None:
    training = TrainingConfig(local_steps=5, batch_size=8, momentum=0.0, weight_decay=0.1)
    nodes = [
        ClientNode(replace(small(), model=model, training=training), _data)
        for model in (page(hidden=8), Mlp(hidden=[8]))
    ]
    theirs = {
        "0.weight": "1.weight",
        "0.bias": "1.bias",
        "1.weight": "3.weight",
        "1.bias": "3.bias",
    }
    start = nodes[0].trainer.initial()
    mine = _after(nodes[0], start, asked)
    told = {**asked, **({"only": ["3.weight"]} if asked else {})}
    torchs = _after(nodes[1], {theirs[name]: a for name, a in start.items()}, told)
    for name, array in mine.items():
        np.testing.assert_allclose(array, torchs[theirs[name]], rtol=1e-3, atol=1e-5)


def test_the_script_gives_the_same_bits_on_two_workers(script: Path) -> None:
    words = ("model=mlx_mlp", "training.momentum=0", "training.local_steps=3", "rounds=2")
    for backend, workers in (("inline", ()), ("ray", ("backend.workers=2",))):
        on = (f"backend={backend}", *workers, f"hydra.run.dir={backend}")
        found = program(script.parent, script.name, *words, *on)
        assert (found.returncode, found.stderr) == (0, "")
    told = [(script.parent / name / "summary.json").read_text() for name in ("inline", "ray")]
    hashes = [json.loads(text)["model_sha256"] for text in told]
    assert hashes[0] == hashes[1]


def _data() -> Any:
    return federate(small())


def _after(node: ClientNode, start: Any, asked: dict[str, Any]) -> Any:
    job = ClientJob(node, 0, 1, Order(start), {}, node.data.train_examples([0]), 5)
    with node.trainer.turn(1, 0), torch.random.fork_rng():
        return job.train(**asked)
