"""The door: code and YAML files from outside, used from a folder of their own."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra.core.config_store import ConfigStore
from safetensors.numpy import load_file
from support.helpers import metrics, summary
from support.programs import program

from fedexp import api
from fedexp.analysis.comparison import compare
from fedexp.analysis.results import load
from fedexp.config.composition import compose_config
from fedexp.config.plugins import REGISTRIES
from fedexp.core.options import ConfigError

SUPPORT = Path(__file__).parent / "support"
FEDDYN = SUPPORT / "feddyn.py"
OUTSIDE = SUPPORT / "outside"
SMALL = ("backend=inline", "rounds=1", "training.local_steps=2")
ONE_RUN = (*SMALL, "hydra.run.dir=out")


def _hashes(folder: Path) -> list[str]:
    found = load(folder)
    assert found.problems() == []
    return [str(value) for value in found.runs["model_sha256"]]


def _plugins(folder: Path) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads((folder / "environment.json").read_text())["plugins"]
    return content


def _settings(folder: Path, *names: str) -> list[Any]:
    (row,) = load(folder).settings[list(names)].to_numpy().tolist()
    found: list[Any] = row
    return found


def _finding(site: str) -> dict[str, str]:
    """Return the variables of a process that finds packages in a further folder."""
    more = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([site, more]) if more else site}


def _refused(
    folder: Path,
    *words: str,
    imports: bool = False,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """Return what a command that must be refused says, a line each; it must leave nothing."""
    before = sorted(folder.iterdir())
    found = program(folder, *words, spied=True, environment=environment)
    assert found.returncode == 2, found.stderr
    *said, imported = found.stdout.splitlines()
    assert said == []
    if not imports:
        assert imported == "[]"
    assert sorted(folder.iterdir()) == before
    lines = found.stderr.splitlines()
    assert all(line.startswith("fedexp: ") for line in lines)
    return [line.removeprefix("fedexp: ") for line in lines]


# A strategy in a script


@pytest.fixture
def script(tmp_path: Path) -> str:
    """Put FedDyn into the folder that programs are started in."""
    shutil.copy(FEDDYN, tmp_path)
    return FEDDYN.name


def test_a_strategy_fits_on_a_page() -> None:
    assert len(FEDDYN.read_text().splitlines()) <= 60


def test_a_script_runs_what_it_brings_and_says_so(tmp_path: Path, script: str) -> None:
    found = program(tmp_path, script, "strategy=mydyn", "strategy.alpha=0.2", *ONE_RUN)
    assert (found.returncode, found.stderr) == (0, "")
    assert summary(tmp_path / "out")["kind"] == "federated"
    assert _plugins(tmp_path / "out") == [
        {
            "file": str(tmp_path / script),
            "sha256": hashlib.sha256(FEDDYN.read_bytes()).hexdigest(),
            "provides": ["strategy=mydyn"],
        }
    ]
    assert _settings(tmp_path / "out", "strategy.name", "strategy.alpha") == ["mydyn", 0.2]


@pytest.mark.slow  # six runs in a process of their own: 15 s
def test_a_script_stands_beside_what_is_there_in_one_table(tmp_path: Path, script: str) -> None:
    words = ("strategy=mydyn,fedavg,local_only", "seed=0,1", "backend=inline")
    found = program(tmp_path, script, "-m", *words, "hydra.sweep.dir=out")
    assert (found.returncode, found.stderr) == (0, "")
    runs = load(tmp_path / "out")
    assert runs.completed == list(range(6))
    assert found.stdout.count("Accuracy on the test set after the last round") == 1
    table = compare(runs).table.set_index("row")
    assert table.index.tolist() == ["mydyn", "fedavg", "local_only"]
    assert table["runs"].tolist() == [2, 2, 2]
    assert table["gain"].notna().tolist() == [True, True, False]
    used = [_plugins(runs.path(run)) for run in range(6)]
    assert [len(plugins) for plugins in used] == [1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["strategy=mydyn", "strategy.alhpa=1"],
            "strategy.alhpa: no such option; did you mean alpha?",
        ),
        (["-m", "strategy=mydyn", "strategy.alpha=1,-1"], "strategy.alpha must be > 0, got -1.0"),
    ],
)
def test_a_typo_costs_a_line(tmp_path: Path, script: str, words: list[str], line: str) -> None:
    assert _refused(tmp_path, script, *words) == [line]


def test_a_choice_of_a_script_is_among_the_choices(tmp_path: Path, script: str) -> None:
    (line,) = _refused(tmp_path, script, "strategy=fedyn")
    names = line.removeprefix("strategy=fedyn: strategy must be one of ").split(", ")
    assert {"mydyn", "fedavg", "local_only"} < set(names)


@pytest.mark.slow  # four backends: a minute
def test_a_script_gives_the_same_bits_wherever_clients_run(tmp_path: Path, script: str) -> None:
    words = [
        *("strategy=mydyn", "rounds=2", "training.local_epochs=1", "clients.num=5"),
        *("partition=iid", "clients.fraction_train=0.6"),
    ]
    where = "backend=inline,ray,flower"
    found = program(tmp_path, script, "-m", *words, where, "hydra.sweep.dir=backends")
    assert (found.returncode, found.stderr) == (0, "")
    parallel = ("+experiment=parallel", "seed=0,1", "hydra.sweep.dir=joblib")
    found = program(tmp_path, script, "-m", *words, *parallel)
    assert (found.returncode, found.stderr) == (0, "")
    in_turn, in_parallel = _hashes(tmp_path / "backends"), _hashes(tmp_path / "joblib")
    assert (len(in_turn), len(in_parallel)) == (3, 2)
    assert {*in_turn, in_parallel[0]} == {in_turn[0]}
    assert in_parallel[1] != in_turn[0]
    provided = [_plugins(path)[0]["provides"] for path in sorted(tmp_path.glob("*/*-mydyn-s?"))]
    assert provided == [["strategy=mydyn"]] * 5


# The same from a package


def _package(folder: Path, code: str, name: str = "theirs") -> str:
    """Install a package by hand, and return the folder that Python is to find it in."""
    site = folder / "site"
    module, info = site / name, site / f"{name}-1.2.dist-info"
    (module / "conf" / "strategy").mkdir(parents=True)
    info.mkdir()
    (module / "__init__.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[fedexp.plugins]\nmine = {name}\n")
    return str(site)


GENTLE = "defaults: [mydyn]\nalpha: 0.01\n"


@pytest.fixture
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    site = _package(tmp_path_factory.mktemp("package"), FEDDYN.read_text())
    (Path(site) / "theirs" / "conf" / "strategy" / "gentle.yaml").write_text(GENTLE)
    return site


@pytest.mark.slow
def test_a_package_brings_choices_and_files(tmp_path: Path, package: str) -> None:
    found = program(tmp_path, "strategy=gentle", *ONE_RUN, environment=_finding(package))
    assert (found.returncode, found.stderr) == (0, "")
    assert _settings(tmp_path / "out", "strategy.name", "strategy.alpha") == ["mydyn", 0.01]
    assert _plugins(tmp_path / "out") == [
        {
            "file": str(Path(package) / "theirs" / "__init__.py"),
            "sha256": hashlib.sha256(FEDDYN.read_bytes()).hexdigest(),
            "provides": ["strategy=mydyn"],
            "package": "theirs",
            "version": "1.2",
        }
    ]


@pytest.mark.slow
def test_help_names_what_a_package_brings(tmp_path: Path, package: str) -> None:
    found = program(tmp_path, "--help", spied=True, environment=_finding(package))
    assert (found.returncode, found.stderr) == (0, "")
    _, _, rest = found.stdout.partition("\n  strategy: ")
    listed = " ".join(rest.partition("\n  dataset: ")[0].split())
    assert {"mydyn", "gentle"} < set(listed.split(", "))
    assert found.stdout.splitlines()[-1] == "[]"
    found = program(tmp_path, "help", "mydyn", spied=True, environment=_finding(package))
    assert found.stdout.startswith("strategy=mydyn: ")
    assert list(tmp_path.iterdir()) == []


def test_a_typo_in_an_option_of_a_package_costs_a_line(tmp_path: Path, package: str) -> None:
    words = ("strategy=gentle", "strategy.alhpa=1")
    assert _refused(tmp_path, *words, environment=_finding(package)) == [
        "strategy.alhpa: no such option; did you mean alpha?"
    ]


@pytest.mark.slow  # four backends: a minute
def test_a_package_gives_the_bits_of_the_script(tmp_path: Path, package: str, script: str) -> None:
    words = ("rounds=2", "training.local_epochs=1", "partition=iid", "backend.threads=1")
    variables = _finding(package)
    found = program(tmp_path, script, "strategy=mydyn", *words, "backend=inline", "hydra.run.dir=a")
    assert (found.returncode, found.stderr) == (0, "")
    for where in ("backend=inline,ray,flower", "+experiment=parallel"):
        folder = f"hydra.sweep.dir={where.rpartition('=')[2][:6]}"
        found = program(
            tmp_path, "-m", "strategy=mydyn", *words, where, folder, environment=variables
        )
        assert (found.returncode, found.stderr) == (0, "")
    (script_hash,) = _hashes(tmp_path / "a")
    assert _hashes(tmp_path / "inline") == [script_hash] * 3
    assert _hashes(tmp_path / "parall") == [script_hash]


TAKEN = """
from dataclasses import dataclass
from fedexp import Strategy, main, strategies

@strategies.register
@dataclass(frozen=True)
class Mine(Strategy):
    name: str = "fedavg"

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (
            "import nothing_of_the_kind",
            "the plug-in mine (theirs 1.2) cannot be imported: ModuleNotFoundError: No module named "
            "'nothing_of_the_kind'; repair or uninstall it",
        ),
        (
            "raise RuntimeError('first\\nsecond')",
            "the plug-in mine (theirs 1.2) cannot be imported: RuntimeError: first; repair or "
            "uninstall it",
        ),
        (TAKEN, "strategy=fedavg has two owners, "),
        (
            TAKEN.replace("@dataclass(frozen=True)\n", ""),
            "{file}: Mine must be a dataclass: write @dataclass(frozen=True) below @register",
        ),
    ],
    ids=["absent", "raises", "taken", "no dataclass"],
)
def test_a_package_that_cannot_be_used_costs_a_line(tmp_path: Path, code: str, line: str) -> None:
    site = _package(tmp_path, code)
    empty = tmp_path / "empty"
    empty.mkdir()
    (found,) = _refused(empty, "rounds=1", environment=_finding(site))
    file = Path(site) / "theirs" / "__init__.py"
    assert found.startswith(line.format(file=file))
    assert str(file) in found or "theirs 1.2" in found


def test_a_package_that_cannot_be_used_leaves_the_analysis_alone(tmp_path: Path) -> None:
    site = _package(tmp_path, "import nothing_of_the_kind")
    empty = tmp_path / "empty"
    empty.mkdir()
    found = program(empty, "compare", ".", environment=_finding(site))
    assert found.stderr.startswith("fedexp compare: .: no run here")


def test_a_script_that_takes_a_name_says_whose_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(TAKEN)
    found = program(tmp_path, "mine.py", "strategy=fedavg")
    assert found.returncode != 0
    last = found.stderr.splitlines()[-1]
    assert f"{file}: rename one of them" in last
    assert "strategies/fedavg.py" in last
    assert list(tmp_path.iterdir()) == [file]


MODEL = """
import math
from dataclasses import dataclass
from fedexp import Model, main, models

@models.register
@dataclass(frozen=True)
class Mine(Model):
    name: str = "mine"

    def build(self, spec):
        import torch
        from torch import nn
        {body}

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(
    ("body", "line"),
    [
        pytest.param(
            "return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(spec.shape), 3))",
            "Mine (mine): outputs must have shape (2, 10) for two inputs, got (2, 3)",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "raise KeyError('depth')",
            "Mine (mine): KeyError: 'depth' ({file}:14)",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["shape", "raises"],
)
def test_a_model_that_breaks_its_contract_costs_a_line(
    tmp_path: Path, body: str, line: str
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MODEL.format(body=body))
    (found,) = _refused(tmp_path, "mine.py", "model=mine", "backend=inline", imports=True)
    assert found.startswith(line.format(file=file))


# One page of every other kind, each from a file of its own


@pytest.fixture
def bring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that imports files from outside; what they register is taken away again."""
    before = {group: set(registry.choices()) for group, registry in REGISTRIES.items()}

    def bring_in(*names: str) -> None:
        for name in names:
            spec = importlib.util.spec_from_file_location(name, OUTSIDE / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, name, module)
            spec.loader.exec_module(module)

    yield bring_in
    store = ConfigStore.instance()
    for group, registry in REGISTRIES.items():
        for name in set(registry.choices()) - before[group]:
            registry.forget(name)
            if group in store.repo:
                store.repo[group].pop(f"{name}.yaml", None)


def _run(folder: Path, *words: str) -> Path:
    found = api.run(*SMALL, *words, folder=folder)
    assert found.problems() == []
    return found.path(0)


VECTORS = ("dataset=vectors", "partition=iid", "model=logistic")


@pytest.mark.slow
def test_a_dataset_of_vectors(bring: Callable[..., None], tmp_path: Path) -> None:
    bring("vectors")
    folder = _run(tmp_path, *VECTORS, "rounds=5", "training.local_steps=20", "dataset.distance=9")
    weights = load_file(folder / "model.safetensors")
    assert [array.shape for array in weights.values() if array.ndim == 2] == [(3, 14)]
    partition = json.loads((folder / "partition.json").read_text())
    assert (partition["classes"], sum(partition["num_examples"])) == (["0", "1", "2"], 180)
    assert summary(folder)["final"]["all"]["accuracy"] > 0.9
    (plugin,) = _plugins(folder)
    assert (plugin["file"], plugin["provides"]) == (
        str(OUTSIDE / "vectors.py"),
        ["dataset=vectors"],
    )


def test_vectors_are_not_given_to_a_model_of_images(bring: Callable[..., None]) -> None:
    bring("vectors", "forgetful")
    with pytest.raises(ConfigError) as caught:
        compose_config(["dataset=vectors", "partition=iid", "model=cnn"])
    assert caught.value.errors == [
        "model=cnn takes inputs of kind image, dataset=vectors has vector; these fit: model=jax_mlp, "
        "keras_mlp, logistic, mlp, sklearn_sgd, tabular_mlp, two_nn, forgetful"
    ]
    with pytest.raises(ConfigError) as caught:
        compose_config(["model=forgetful"])
    (line,) = caught.value.errors
    assert line.startswith(
        "model=forgetful takes inputs of kind vector, dataset=mnist5k has image;"
    )


@pytest.mark.slow  # a whole command
def test_a_model_with_dropout(bring: Callable[..., None], tmp_path: Path) -> None:
    bring("vectors", "forgetful")
    words = (*VECTORS[:2], "model=forgetful", "clients.fraction_evaluate=1")
    first, again, without = (
        _run(tmp_path / name, *words, *more)
        for name, more in (("a", ()), ("b", ()), ("c", ("model.dropout=0",)))
    )
    assert summary(first)["model_sha256"] == summary(again)["model_sha256"]
    assert (first / "metrics.csv").read_bytes() == (again / "metrics.csv").read_bytes()
    assert summary(first)["model_sha256"] != summary(without)["model_sha256"]
    assert [plugin["provides"] for plugin in _plugins(first)] == [
        ["dataset=vectors"],
        ["model=forgetful"],
    ]


@pytest.mark.slow  # a whole command
def test_a_partition_with_rules_and_subsets(bring: Callable[..., None], tmp_path: Path) -> None:
    bring("vectors", "ladder")
    words = ("dataset=vectors", "model=logistic", "partition=ladder")
    folder = _run(tmp_path, *words, "clients.num=4")
    partition = json.loads((folder / "partition.json").read_text())
    assert partition["num_examples"] == [12, 24, 48, 96]
    assert set(summary(folder)["final"]) == {"all", "0-1"}
    with pytest.raises(ConfigError) as caught:
        compose_config(["partition=ladder", "clients.num=6"])
    assert caught.value.errors == ["clients.num must be <= 5 for partition=ladder, got 6"]


def test_a_metric(bring: Callable[..., None], tmp_path: Path) -> None:
    bring("weakest")
    folder = _run(
        tmp_path,
        "metrics=[weakest]",
        "objective=weakest",
        "stop.metric=weakest",
        "clients.fraction_evaluate=1",
    )
    confusion = pd.read_csv(folder / "confusion.csv").drop(columns=["client", "true_label"])
    recall = np.diag(confusion) / confusion.sum(axis=1)
    assert summary(folder)["final"]["all"]["weakest"] == recall.min()
    rows = metrics(folder).query("metric == 'weakest'")
    assert set(rows["split"]) == {"test", "client_test"}
    assert [plugin["provides"] for plugin in _plugins(folder)] == [["metrics=weakest"]]


@pytest.mark.slow  # a whole command
def test_an_attack(bring: Callable[..., None], tmp_path: Path) -> None:
    bring("vectors", "together")
    kind = "clients.byzantine.kind=together"
    faulty = (kind, "clients.byzantine.fraction=0.99", "clients.byzantine.scale=2")
    folder = _run(tmp_path / "run", *VECTORS, *faulty, "clients.byzantine.options.shift=0.25")
    assert summary(folder)["byzantine"] == [0, 1, 2]
    failures = pd.read_csv(folder / "failures.csv")
    assert failures["reason"].tolist() == ["together"] * 3
    # All clients agree, so that the model is the initial one, moved by 2 * 0.25.
    still = _run(tmp_path / "still", *VECTORS, "training.learning_rate=1e-30", kind)
    moved, initial = (load_file(path / "model.safetensors") for path in (folder, still))
    for name, array in initial.items():
        np.testing.assert_allclose(moved[name], array + 0.5, rtol=0, atol=1e-6)
    provided = [plugin["provides"] for plugin in _plugins(folder)]
    assert provided == [["dataset=vectors"], [kind]]
    # Where nobody is faulty, the attack is not in use.
    assert [plugin["provides"] for plugin in _plugins(still)] == [["dataset=vectors"]]


@pytest.mark.slow  # four backends: a minute
def test_all_of_them_give_the_same_bits_wherever_clients_run(tmp_path: Path) -> None:
    names = ("vectors", "forgetful", "ladder", "weakest", "together")
    for name in names:
        shutil.copy(OUTSIDE / f"{name}.py", tmp_path)
    lines = [f"import {name}" for name in names]
    (tmp_path / "all.py").write_text("\n".join([*lines, "from fedexp import main", "main()"]))
    words = [
        *("dataset=vectors", "model=forgetful", "partition=ladder", "metrics=[weakest]"),
        *("clients.byzantine.kind=together", "clients.byzantine.fraction=0.4"),
        *("rounds=2", "training.local_epochs=2", "clients.fraction_evaluate=1"),
    ]
    for where in ("backend=inline,ray,flower", "+experiment=parallel"):
        folder = f"hydra.sweep.dir={where.rpartition('=')[2][:6]}"
        found = program(tmp_path, "all.py", "-m", *words, where, folder)
        assert (found.returncode, found.stderr) == (0, "")
    hashes = [*_hashes(tmp_path / "inline"), *_hashes(tmp_path / "parall")]
    assert hashes == [hashes[0]] * 4
    tables = {path.read_bytes() for path in tmp_path.glob("*/*/metrics.csv")}
    assert len(tables) == 1
    for run in tmp_path.glob("*/*-fedavg-s0"):
        provided = [word for plugin in _plugins(run) for word in plugin["provides"]]
        assert sorted(word.rpartition("=")[2] for word in provided) == sorted(names)


# YAML alone


@pytest.fixture
def presets(tmp_path: Path) -> Path:
    """Return a folder of YAML files: a strategy, and an experiment."""
    folder = tmp_path / "presets"
    (folder / "strategy").mkdir(parents=True)
    (folder / "experiment").mkdir()
    (folder / "strategy" / "mild.yaml").write_text("defaults: [fedprox]\nproximal_mu: 0.01\n")
    (folder / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n  - override /strategy: mild\n  - override /backend: inline\n"
        "name: mine\nrounds: 1\ntraining:\n  local_steps: 2\n"
    )
    return folder


@pytest.mark.slow  # a whole command: 5 s
def test_a_folder_of_yaml_files_is_enough(tmp_path: Path, presets: Path) -> None:
    words = ("--config-dir", presets.name, "experiment=mine", "hydra.run.dir=out")
    found = program(tmp_path, *words)
    assert (found.returncode, found.stderr) == (0, "")
    names = ("name", "strategy.name", "strategy.proximal_mu")
    assert _settings(tmp_path / "out", *names) == ["mine", "fedprox", 0.01]
    assert _plugins(tmp_path / "out") == []


def test_beside_a_preset_of_ones_own_only_what_is_wrong_is_named(
    tmp_path: Path, presets: Path
) -> None:
    words = ("--config-dir", str(presets), "strategy=mild", "training.batchsize=32")
    assert _refused(tmp_path, *words) == [
        "training.batchsize: no such option; did you mean batch_size?"
    ]


@pytest.mark.slow
def test_a_folder_of_yaml_files_beside_those_of_a_package(
    tmp_path: Path, presets: Path, package: str
) -> None:
    variables, words = _finding(package), ("--cfg", "job", "strategy=mild")
    for way in (["--config-dir", str(presets)], [f"hydra.searchpath=[file://{presets}]"]):
        found = program(tmp_path, *words, *way, environment=variables)
        assert found.stderr == ""
        assert "proximal_mu: 0.01" in [line.strip() for line in found.stdout.splitlines()]


@pytest.mark.slow
def test_a_folder_of_yaml_files_in_python(presets: Path, tmp_path: Path) -> None:
    found = api.run(*("strategy=mild,fedavg", *SMALL), folder=tmp_path / "out", config_dir=presets)
    assert found.problems() == []
    assert found.settings["strategy.name"].tolist() == ["fedprox", "fedavg"]
    assert found.settings["strategy.proximal_mu"].tolist()[0] == 0.01
    with pytest.raises(ConfigError, match=r"^--config-dir .*absent: no such folder$"):
        api.run("strategy=mild", config_dir=tmp_path / "absent", folder=tmp_path / "none")
    with pytest.raises(ConfigError, match=r"^rounds must be >= 1, got 0$"):
        api.run("strategy=mild", "rounds=0", config_dir=presets, folder=tmp_path / "none")
    assert not (tmp_path / "none").exists()
