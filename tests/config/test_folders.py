"""Which folder a job writes, and whose it is: known before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from support.helpers import config
from support.programs import program

from fedexp import runner
from fedexp.config.callbacks import add_to_manifest, manifest_of, refuse_promised
from fedexp.config.composition import compose_config, plan
from fedexp.config.folders import SWEEP_DIR, free_name, moved_errors
from fedexp.config.hydra_internals import quoted
from fedexp.config.schema import config_bytes
from fedexp.config.source import conf_dir
from fedexp.core.files import try_folder
from fedexp.core.options import ConfigError, FedexpError
from fedexp.datasets.newsgroups20 import Newsgroups20
from fedexp.models.transformers import Transformers

B = ("backend=inline", "model=logistic", "rounds=1", "training.local_steps=2")


def _errors(*overrides: str, multirun: bool = True) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        plan(overrides, multirun=multirun)
    return caught.value.errors


def test_jobs_that_would_share_a_folder_are_named() -> None:
    lines = _errors(
        "hydra.sweep.subdir=${strategy.name}", "strategy=fedavg,local_only", "seed=0,1,2"
    )
    assert [line.split(";")[0] for line in lines] == [
        "hydra.sweep.subdir: jobs 0, 1, 2 would all write fedavg",
        "hydra.sweep.subdir: jobs 3, 4, 5 would all write local_only",
    ]


def test_all_jobs_write_below_the_folder_of_their_multirun() -> None:
    jobs = plan(["name=a,b", "strategy=fedavg,local_only"], multirun=True)
    assert len({job.sweep for job in jobs}) == 1
    for number, job in enumerate(jobs):
        assert job.folder is not None
        assert job.folder.parent == job.sweep
        assert job.folder.name == f"{number}-{job.config.strategy.name}-s0"
    raw = OmegaConf.load(conf_dir() / "config.yaml")
    assert OmegaConf.to_container(raw)["hydra"]["sweep"]["dir"] == SWEEP_DIR  # type: ignore[call-overload, index]
    (line,) = _errors("hydra.sweep.dir=out/${strategy.name}", "strategy=fedavg,local_only")
    assert line.startswith("hydra.sweep.dir=out/${strategy.name}: ")


def test_a_folder_belongs_to_one_configuration(tmp_path: Path) -> None:
    here = f"hydra.run.dir={quoted(str(tmp_path))}"
    (tmp_path / "config.yaml").write_bytes(config_bytes(compose_config(["mode=partition"])))
    assert plan([here], multirun=False)[0].folder == tmp_path  # a preview came first
    (line,) = _errors(here, "partition.exclude=[[1],[2],[3]]", multirun=False)
    assert line.startswith(f"hydra.run.dir: {tmp_path} holds another configuration")
    (tmp_path / "config.yaml").write_text("damaged: [")
    assert len(_errors(here, multirun=False)) == 1
    (tmp_path / "summary.json").touch()
    (line,) = _errors(here, multirun=False)
    assert f"fedexp resume {tmp_path}" in line


def test_a_job_finds_a_name_beside_what_is_there(tmp_path: Path) -> None:
    assert free_name(str(tmp_path), "0-fedavg-s0") == "0-fedavg-s0"
    for name, file in (("0-fedavg-s0", "summary.json"), ("0-fedavg-s0-2", "config.yaml")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    assert free_name(str(tmp_path), "0-fedavg-s0") == "0-fedavg-s0-3"


def test_a_job_of_an_earlier_command_keeps_its_place(tmp_path: Path) -> None:
    words = [*B, f"hydra.sweep.dir={quoted(str(tmp_path))}"]
    first = plan([*words, "seed=0,1"], multirun=True)
    add_to_manifest(tmp_path, manifest_of(first, tmp_path, {}))
    (tmp_path / "0-fedavg-s0").mkdir()
    (tmp_path / "0-fedavg-s0" / "summary.json").touch()  # the second has not begun
    more = manifest_of(plan([*words, "seed=7,8"], multirun=True), tmp_path, {})
    refuse_promised(tmp_path, more)
    again = manifest_of(plan([*words, "rounds=2", "seed=0,1"], multirun=True), tmp_path, {})
    with pytest.raises(FedexpError, match="1-fedavg-s1 of an earlier command has not begun"):
        refuse_promised(tmp_path, again)
    add_to_manifest(tmp_path, more)
    listed = json.loads((tmp_path / "sweep.json").read_text())["jobs"]
    names = ["0-fedavg-s0", "1-fedavg-s1", "0-fedavg-s7", "1-fedavg-s8"]
    assert [job["folder"] for job in listed] == names


@pytest.mark.parametrize(
    "name",
    ["a b", "it's (1), [x]{y}: z=1", "back\\slash", "end\\", "\\'", "äß", "50%", "a'b\\\\'c"],
)
def test_any_path_can_be_said_as_an_override(name: str) -> None:
    (job,) = plan([f"hydra.run.dir={quoted(name)}"], multirun=False)
    assert str(job.folder) == name


@pytest.mark.parametrize("below", ["file/x", "file", "a" * 300, "new/" + "b" * 300])
def test_a_folder_that_cannot_be_made_is_a_line_and_leaves_nothing(
    tmp_path: Path, below: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FedexpError) as caught:
        try_folder(tmp_path / below)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    try_folder(tmp_path / "new" / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_multirun_is_refused_only_if_no_job_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    good, bad, worse = tmp_path / "good", tmp_path / "file" / "1", tmp_path / "file" / "2"
    runner.ensure_folders([good, bad, worse, None], tmp_path)
    with pytest.raises(FedexpError) as caught:
        runner.ensure_folders([bad, worse], tmp_path)
    assert len(str(caught.value).splitlines()) == 2
    with pytest.raises(FedexpError):
        runner.ensure_folders([good], tmp_path / "file" / "sweep")


@pytest.mark.parametrize(
    "words",
    [
        [f"name={'n' * 300}", *B],
        ["hydra.run.dir=file/x", *B],
        ["hydra.run.dir=file/x", "mode=partition"],
        ["-m", "hydra.sweep.dir=file/x", *B, "seed=0,1"],
        ["-m", "hydra.sweep.dir=.", "hydra.sweep.subdir=file/${hydra.job.num}", *B, "seed=0,1"],
        ["experiment=tune", "hydra.sweep.dir=file/x"],
    ],
)
@pytest.mark.slow  # a whole command each
def test_a_command_without_a_folder_leaves_nothing(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "file").touch()
    found = program(tmp_path, *words)
    assert found.returncode == 2, found.stderr
    assert found.stdout == ""
    assert 1 <= len(found.stderr.splitlines()) <= 2
    assert all(line.startswith("fedexp: ") for line in found.stderr.splitlines())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow  # three runs
def test_a_job_without_a_folder_costs_that_job(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "1").touch()
    words = ["hydra.sweep.dir=out", "hydra.sweep.subdir=${hydra.job.num}/x"]
    found = program(tmp_path, "-m", *B, "seed=0,1,2", *words)
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert line == "fedexp: run failed: out/1/x cannot be made: Not a directory"
    assert any(words[:2] == ["fedavg", "2"] for words in map(str.split, found.stdout.splitlines()))
    listed = json.loads((tmp_path / "out" / "sweep.json").read_text())["jobs"]
    assert [job["folder"] for job in listed] == ["0/x", "1/x", "2/x"]


@pytest.mark.slow  # five runs
def test_one_more_job_leaves_a_finished_sweep_as_it_was(tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        found = (p for p in (tmp_path / "out").rglob("*") if p.is_file())
        return {str(path.relative_to(tmp_path)): path.read_bytes() for path in found}

    trackers = ["tracking=[wandb,tensorboard]", "tracking.mode=offline"]
    first = ["-m", *B, *trackers, "seed=0,1", "hydra.sweep.dir=out"]
    assert program(tmp_path, *first).returncode == 0
    before = files()
    second = ["-m", *B, *trackers, "seed=0,1", "partition=dirichlet", "partition.alpha=10"]
    found = program(tmp_path, *second, "hydra.sweep.dir=out")
    assert (found.returncode, found.stderr) == (0, "")
    after = files()
    kept = {f"out/{name}": content for name, content in _moved(before).items()}
    assert {name: after[name] for name in kept} == kept
    runs = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert runs == ["0-fedavg-s0", "0-fedavg-s0-2", "1-fedavg-s1", "1-fedavg-s1-2"]
    jobs = json.loads(after["out/sweep.json"])["jobs"]
    assert jobs[:2] == json.loads(before["out/sweep.json"])["jobs"]
    assert [job["folder"] for job in jobs[2:]] == ["0-fedavg-s0-2", "1-fedavg-s1-2"]


def _moved(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return what a sweep's files are called once another command has written beside them."""
    names = {name.removeprefix("out/"): content for name, content in files.items()}
    names["multirun-1.yaml"] = names.pop("multirun.yaml")
    del names["sweep.json"]
    return names


def test_a_job_with_a_folder_of_its_own_is_told_whole_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = config(model=Transformers(path="gpt"), dataset=Newsgroups20(tokenizer="words"))
    moves, stays = (
        OmegaConf.create({"hydra": {"job": {"chdir": chdir}}}) for chdir in (True, None)
    )
    assert moved_errors(stays, found) == []
    lines = moved_errors(moves, found)
    assert [line.split(":")[0] for line in lines] == ["dataset.tokenizer=words", "model.path=gpt"]
    assert all(
        line.endswith(f"the whole path, {tmp_path / name}")
        for line, name in zip(lines, ("words", "gpt"), strict=True)
    )
    assert moved_errors(moves, config(model=Transformers(path=str(tmp_path)))) == []
