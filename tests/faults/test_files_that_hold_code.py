"""Files that somebody sent are read, never run."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.folders import write_run

from fedexp.analysis.results import load
from fedexp.config.composition import compose_config, plan
from fedexp.config.saved import saved_config
from fedexp.core.checkpoints import latest
from fedexp.core.options import ConfigError, FedexpError


class Making:
    """What makes a folder as soon as it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.folder,)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """Return a folder that is there once code was run."""
    return tmp_path / "canary"


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    """Return the folder of a run that completed."""
    rows = ["1,global,test,all,,accuracy,0.5", "2,global,test,all,,accuracy,0.6"]
    return write_run(tmp_path / "results" / "sent", "fedavg", rows)


def test_a_configuration_with_a_python_tag_is_refused(sent: Path, canary: Path) -> None:
    (sent / "config.yaml").write_text(f"name: !!python/object/apply:os.mkdir ['{canary}']\n")
    with pytest.raises(ConfigError):
        saved_config(sent)
    with pytest.raises(ConfigError):
        plan([], multirun=False, config_dir=str(sent), config_name="config")
    with suppress(FedexpError):
        load(sent.parent)
    assert not canary.exists()


@pytest.mark.parametrize("file", ["config.yaml", "summary.json", "metrics.csv", "environment.json"])
def test_a_pickle_in_the_place_of_a_file_is_not_loaded(sent: Path, canary: Path, file: str) -> None:
    (sent / file).write_bytes(pickle.dumps(Making(canary)))
    with suppress(FedexpError):
        load(sent.parent)
    if file == "config.yaml":
        with pytest.raises(ConfigError):
            saved_config(sent)
    assert not canary.exists()


def test_a_pickle_in_the_place_of_a_checkpoint_is_not_loaded(tmp_path: Path, canary: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "round-1.safetensors").write_bytes(pickle.dumps(Making(canary)))
    state, problems = latest(tmp_path)
    assert (state, len(problems)) == (None, 1)
    assert not canary.exists()


def test_the_pickle_of_these_tests_works(canary: Path) -> None:
    pickle.loads(pickle.dumps(Making(canary)))
    assert canary.exists()


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "a\nb", "..", "", "\x1b[2J"])
def test_a_name_cannot_leave_its_folder(name: str) -> None:
    with pytest.raises(ConfigError, match="name must be a word"):
        compose_config([f"name={json.dumps(name)}"])
