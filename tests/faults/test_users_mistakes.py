"""What users of Hydra, notebooks and W&B have reported of similar tools, as whole commands."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support.helpers import summary
from support.programs import program

from fedexp import runner
from fedexp.api import run
from fedexp.config.composition import compose_config
from fedexp.core.options import ConfigError, FedexpError
from fedexp.datasets import Dataset
from fedexp.federation.events import RunInfo

B = ("backend=inline", "model=logistic", "rounds=1", "training.local_steps=2")
KEY = "0123456789abcdef0123456789abcdef01234567"


def _files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.slow  # four whole commands
@pytest.mark.parametrize("told", ["inline", "module://matplotlib_inline.backend_inline", "foo"])
def test_a_notebooks_backend_costs_nothing(tmp_path: Path, told: str) -> None:
    words = [*B, "tracking=tensorboard"]
    plain = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    for name, environment in (("with", {**plain, "MPLBACKEND": told}), ("without", plain)):
        found = program(tmp_path, *words, f"hydra.run.dir={name}", environment=environment)
        assert (found.returncode, found.stderr) == (0, "")
    ours, theirs = _files(tmp_path / "with"), _files(tmp_path / "without")
    assert summary(tmp_path / "with")["status"] == "completed"
    same = ("metrics.csv", "confusion.png", "partition.png", "model.safetensors", "confusion.csv")
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    assert {n for n in ours if "events" not in n} == {n for n in theirs if "events" not in n}
    assert summary(tmp_path / "with")["final"]["all"]["accuracy"] == pytest.approx(0.152)


def test_a_run_without_pictures_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> bytes:
        raise RuntimeError("no font")

    monkeypatch.setattr("fedexp.federation.conclusion.confusion_png", fails)
    assert runner.run_logged(RunInfo(compose_config(list(B)), tmp_path))
    assert summary(tmp_path)["status"] == "completed"
    assert (tmp_path / "partition.png").is_file()
    assert not (tmp_path / "confusion.png").exists()
    assert "confusion.png is missing, it cannot be drawn: RuntimeError: no font" in (
        capsys.readouterr().out
    )


@pytest.mark.slow  # two runs each
@pytest.mark.parametrize(
    "more", [["hydra.job.chdir=true"], ["hydra.output_subdir=.hydra", "hydra.job.chdir=true"]]
)
def test_a_key_that_hydra_is_to_set_is_in_no_file(tmp_path: Path, more: list[str]) -> None:
    words = [f"+hydra.job.env_set.WANDB_API_KEY={KEY}", "seed=0,1", "hydra.sweep.dir=s"]
    found = program(tmp_path, "-m", *more, *words, *B)
    assert (found.returncode, found.stderr) == (0, "")
    files = _files(tmp_path)
    assert "s/multirun.yaml" in files
    assert [name for name, content in files.items() if KEY.encode() in content] == []


@pytest.mark.parametrize("below", ["file/x", "n" * 300])
def test_python_is_told_of_a_folder_before_anything_runs(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    for overrides in (["seed=0"], ["seed=0,1"]):
        with pytest.raises(FedexpError, match=str(tmp_path)):
            run(*B, *overrides, folder=tmp_path / below)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_a_second_run_does_not_take_the_folder_of_the_first(tmp_path: Path) -> None:
    run(*B, folder=tmp_path / "out")
    before = _files(tmp_path)
    with pytest.raises(ConfigError, match="holds a run already"):
        run(*B, "seed=1", folder=tmp_path / "out")
    assert _files(tmp_path) == before


@pytest.mark.slow  # four runs
def test_several_runs_find_places_beside_earlier_ones(tmp_path: Path) -> None:
    run(*B, "seed=0,1", folder=tmp_path)
    before = _files(tmp_path)
    found = run(*B, "seed=0,1", "partition=dirichlet", "partition.alpha=10", folder=tmp_path)
    names = ["0-fedavg-s0", "0-fedavg-s0-2", "1-fedavg-s1", "1-fedavg-s1-2"]
    assert sorted(found.runs["name"]) == names
    del before["sweep.json"]
    after = _files(tmp_path)
    assert {name: after[name] for name in before} == before


@pytest.mark.slow  # a whole command
def test_a_folder_of_its_own_does_not_hide_the_data(tmp_path: Path, mnist_root: Path) -> None:
    # With hydra.job.chdir the working directory is the run's; dataset.root is the command's.
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "MNIST").symlink_to(mnist_root.resolve() / "MNIST")
    words = ["dataset=mnist", "dataset.root=data", "hydra.job.chdir=true", "hydra.run.dir=out"]
    found = program(tmp_path, *B, *words)
    assert (found.returncode, found.stderr) == (0, "")
    assert not (tmp_path / "out" / "data").exists()


def test_damaged_files_of_a_dataset_are_named(tmp_path: Path, mnist_root: Path) -> None:
    shutil.copytree(mnist_root / "MNIST", tmp_path / "MNIST")
    damaged = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:1000])
    dataset: Dataset = compose_config(["dataset=mnist", f"dataset.root={tmp_path}"]).dataset
    with pytest.raises(FedexpError, match=str(damaged)) as caught:
        dataset.load()
    assert "Delete what is damaged" in str(caught.value)
