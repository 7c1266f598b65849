"""``--config-dir``, ``--config-name``, ``--config-path``: what a command begins with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from support.programs import program

from fedexp.__main__ import main
from fedexp.config.composition import compose_config, plan
from fedexp.config.schema import Config, config_bytes
from fedexp.core.options import ConfigError

B = ("backend=inline", "model=logistic", "rounds=1", "training.local_steps=2")


def _file(folder: Path, name: str, *lines: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n")
    return str(folder)


def _config(*overrides: str, **files: Any) -> Config:
    (job,) = plan(overrides, multirun=False, **files)
    return job.config


def _errors(*overrides: str, **files: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        plan(overrides, multirun=False, **files)
    assert all("\n" not in line for line in caught.value.errors)
    return caught.value.errors


SAVED = (
    ["seed=5", *B],
    ["strategy=scaffold", "strategy.server_learning_rate=0.5", "partition=dirichlet", "name='a b'"],
    ["experiment=niid_fmnist", "dataset=mnist5k", "clients.byzantine.fraction=0.2"],
    ["tracking=wandb", "tracking.tags=[a,b]", "training.weight_decay=1e-5", "isolated_rounds=2"],
    ["model.hidden=[]", "strategy=local_only", "backend.workers=2", "metrics=[accuracy,top5]"],
    ["partition=exclude", "partition.exclude=[[1],[2],[3]]", "debug=smoke"],
)


@pytest.mark.parametrize("overrides", SAVED)
def test_what_a_run_saved_is_what_runs(tmp_path: Path, overrides: list[str]) -> None:
    config = compose_config(overrides)
    for name in ("config", "again"):  # the first is what fedexp's own is called
        (tmp_path / f"{name}.yaml").write_bytes(config_bytes(config))
    assert _config(config_dir=str(tmp_path), config_name="config") == config
    assert _config(config_path=str(tmp_path), config_name="again.yaml") == config


def test_a_folder_is_named_from_where_the_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "config.yaml").write_bytes(config_bytes(compose_config(["seed=5"])))
    monkeypatch.chdir(tmp_path)
    assert _config(config_path="first").seed == 5  # its config.yaml
    assert _config(config_dir="first").seed == 0  # only searched
    monkeypatch.chdir(tmp_path / "first")
    assert _config(config_name="config").seed == 5


def test_a_list_of_values_is_put_on_top_of_the_lesson(tmp_path: Path) -> None:
    lines = ["rounds: 7", "strategy: fedprox", "partition: {name: dirichlet, alpha: 0.3}"]
    folder = _file(tmp_path, "plain.yaml", *lines, "clients: cross_silo")
    config = _config(config_dir=folder, config_name="plain")
    same = ["rounds=7", "strategy=fedprox", "partition=dirichlet", "partition.alpha=0.3"]
    assert config == compose_config([*same, "clients=cross_silo"])
    changed = _config("strategy=scaffold", config_dir=folder, config_name="plain")
    assert (changed.strategy.name, changed.rounds) == ("scaffold", 7)


def test_a_configuration_of_ones_own_may_list_defaults(tmp_path: Path) -> None:
    lines = ["defaults:", "  - config", "  - override strategy: fedprox", "  - _self_", "rounds: 9"]
    folder = _file(tmp_path, "mine.yaml", *lines)
    config = _config(config_dir=folder, config_name="mine")
    assert (config.strategy.name, config.rounds) == ("fedprox", 9)
    # One that is called as fedexp's own, which it names, is no circle.
    folder = _file(tmp_path / "again", "config.yaml", *lines)
    assert _config(config_dir=folder, config_name="config") == config


def test_its_mistakes_are_told_before_anything_starts(tmp_path: Path) -> None:
    folder = _file(tmp_path, "mine.yaml", "defaults: [config, _self_]", "rounds: 0")
    assert _errors(config_dir=folder, config_name="mine") == ["rounds must be >= 1, got 0"]
    assert _errors("seed=-1", config_dir=folder, config_name="mine") == [
        "seed must be >= 0, got -1",
        "rounds must be >= 1, got 0",
    ]


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        (
            ["training: {batchsize: 3}"],
            "training.batchsize: no such option; did you mean batch_size",
        ),
        (["defaults: [config, _self_]", "rounds: many"], "rounds: Value 'many'"),
        (["defaults: [config, absent]"], "absent"),
        (["rounds: [1"], "line 1"),
        (["- rounds"], "option: value"),
        (["strategy: {name: nope}"], "strategy/nope"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, lines: list[str], part: str) -> None:
    folder = _file(tmp_path, "bad.yaml", *lines)
    for overrides in ([], ["seed=1", "rounds=2"])[: 2 if "rounds: many" in lines else 1]:
        (line,) = _errors(*overrides, config_dir=folder, config_name="bad")
        assert f"{tmp_path / 'bad.yaml'}" in line
        assert part in line


def test_a_file_that_is_not_built_on_fedexps_own_is_refused(tmp_path: Path) -> None:
    folder = _file(tmp_path, "bare.yaml", "defaults: [_self_]", "rounds: 2")
    (line,) = _errors(config_dir=folder, config_name="bare")
    assert "name config in its list of defaults" in line


def test_a_file_or_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    (line,) = _errors(config_dir=str(tmp_path), config_name="absent")
    assert line.startswith("--config-name absent: ")
    lines = _errors(config_dir="nowhere", config_path=str(tmp_path / "gone"))
    assert [line.split(":")[0] for line in lines] == [
        f"--config-path {tmp_path / 'gone'}",
        "--config-dir nowhere",
    ]


def test_both_ways_to_name_further_folders_work_together(tmp_path: Path) -> None:
    one = _file(tmp_path / "one" / "strategy", "gentle.yaml", "defaults: [fedprox]")
    two = _file(tmp_path / "two" / "strategy", "rough.yaml", "defaults: [fedavgm]")
    search = f"hydra.searchpath=[file://{Path(two).parent}]"
    jobs = plan(["strategy=gentle,rough", search], multirun=True, config_dir=str(Path(one).parent))
    assert [job.config.strategy.name for job in jobs] == ["fedprox", "fedavgm"]


@pytest.mark.parametrize(
    ("overrides", "needy"),
    [
        (["+experiment=lesson,niid_fmnist"], ["lesson"]),
        (["+experiment=tune,lesson"], ["tune", "lesson"]),
        (["+experiment=parallel,niid_fmnist"], ["parallel"]),
        (["experiment=niid_fmnist,parallel", "seed=0,1,2"], ["parallel"]),
    ],
)
def test_an_experiment_that_needs_a_command_of_its_own_says_so(
    overrides: list[str], needy: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan([*overrides, "dataset=mnist5k", *B], multirun=True)
    assert [line.split(":")[0] for line in caught.value.errors] == [
        f"experiment={name}" for name in needy
    ]


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["-m", "--cfg", "job"], "--multirun"),
        (["--resolve"], "--resolve"),
        (["--experimental-rerun", "job.pickle"], "--experimental-rerun"),
        (["--cfg", "job", "--config-name", "absent"], "--config-name"),
    ],
)
def test_flags_that_do_not_fit_are_a_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    flag: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["fedexp", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith(f"fedexp: {flag}")


@pytest.mark.slow  # five whole commands
def test_a_saved_configuration_gives_the_same_numbers(tmp_path: Path) -> None:
    first = tmp_path / "first"
    assert program(tmp_path, *B, "seed=5", "hydra.run.dir=first").returncode == 0
    (first / "again.yaml").write_bytes((first / "config.yaml").read_bytes())
    ways = {
        "second": ["--config-dir", str(first), "--config-name", "config"],
        "third": [f"--config-path={first}", "-cn", "config"],
        "fourth": ["-cd", "first", "--config-name=again"],
        "fifth": ["-cp", "first"],
    }
    for name, words in ways.items():
        found = program(tmp_path, *words, f"hydra.run.dir={name}")
        assert (found.returncode, found.stderr) == (0, ""), name
        for file in ("metrics.csv", "config.yaml", "model.safetensors"):
            assert (tmp_path / name / file).read_bytes() == (first / file).read_bytes()
    found = program(tmp_path, "-m", "-cp", "first", "seed=5,6", "hydra.sweep.dir=sweep")
    assert (found.returncode, found.stderr) == (0, "")
    same = (tmp_path / "sweep" / "0-fedavg-s5" / "metrics.csv").read_bytes()
    assert same == (first / "metrics.csv").read_bytes()
