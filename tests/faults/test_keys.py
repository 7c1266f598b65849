"""Keys that a command can see stand in no file that it writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.programs import program

CANARIES = {
    "WANDB_API_KEY": "0a1b2c3d" * 5,  # as long as W&B's
    "HF_TOKEN": "hf_canaryOfTheEnvironment",
    "PLAIN": "canaryThatHydraSets",
    "db": "canaryOfAnAddress",
    "stray": "canaryOfAMistypedOption",
}

SCRIPT = """
import os
from dataclasses import dataclass
from fedexp import Model, main, models

@models.register
@dataclass(frozen=True)
class Telling(Model):
    name: str = "telling"

    def build(self, spec):
        from torch import nn
        if os.environ.get("PLAIN"):  # not while the model is tried out
            raise RuntimeError(f"refused: {os.environ['HF_TOKEN']}, {os.environ['WANDB_API_KEY']}")
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow  # a whole multirun: 15 s
def test_no_file_holds_a_key(tmp_path: Path) -> None:
    (tmp_path / "telling.py").write_text(SCRIPT)
    budget = "backend=inline rounds=1 training.local_steps=2".split()
    done = program(
        tmp_path,
        "telling.py",
        "-m",
        *budget,
        "model=logistic,telling",  # the second fails, and its traceback tells the keys
        "tracking=wandb",
        "tracking.mode=offline",
        "hydra.job.chdir=true",
        "hydra.output_subdir=.hydra",
        "hydra.sweep.dir=sweep",
        f"+hydra.job.env_set.PLAIN={CANARIES['PLAIN']}",
        f"+hydra.job.env_set.WANDB_API_KEY={CANARIES['WANDB_API_KEY']}",
        f"+hydra.job.env_set.MIRROR=https://me:{CANARIES['db']}@host/path",
        environment={**os.environ, "HF_TOKEN": CANARIES["HF_TOKEN"]},
    )
    refused = program(tmp_path, *budget, f"+api_token={CANARIES['stray']}", "hydra.run.dir=one")
    assert (done.returncode, refused.returncode) == (1, 2)
    log = (tmp_path / "sweep" / "1-fedavg-s0" / "run.log").read_text()
    assert "refused" in log  # it did tell
    (tmp_path / "telling.py").unlink()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"hydra.yaml", "multirun.yaml", "sweep.json", "environment.json"} < {
        f.name for f in files
    }
    assert any(path.suffix == ".wandb" for path in files)
    told = {
        f"{path.relative_to(tmp_path)}: {name}"
        for path in files
        for name, value in CANARIES.items()
        if value.encode() in path.read_bytes()
    }
    assert told == set()
    shown = done.stdout + done.stderr + refused.stdout + refused.stderr
    assert [name for name, value in CANARIES.items() if value in shown] == []
