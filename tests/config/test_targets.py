"""Hydra calls what its part of a configuration names: only what is installed, or the user's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fedexp.config.composition import plan
from fedexp.core.options import ConfigError

EVIL = "subprocess.Popen"


@pytest.mark.parametrize(
    "override",
    [
        f"+hydra.callbacks.x._target_={EVIL}",
        f"+hydra.callbacks.x={{_target_: {EVIL}, args: [id]}}",
        f"+hydra.callbacks.x={{_target_: hydra.experimental.Callback, y: [{{_target_: {EVIL}}}]}}",
        "+hydra.callbacks.x._target_=hydra.utils.instantiate",
        "+hydra.callbacks.x._target_=${oc.env:HOME}",
        f"hydra.callbacks.sweep_folder._target_={EVIL}",
        f"hydra.launcher._target_={EVIL}",
        f"hydra.sweeper._target_={EVIL}",
        "hydra.job_logging.handlers.file.class=mine.Handler",
        "hydra.hydra_logging.handlers.console.stream=ext://mine.stream",
    ],
)
def test_code_that_a_command_line_names_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="Hydra would run this code") as refused:
        plan([override], multirun=False)
    (line,) = refused.value.errors
    assert override.lstrip("+").startswith(line[:15])


def test_one_job_of_a_multirun_is_refused_alike() -> None:
    swept = f"hydra.job_logging.handlers.file.class=logging.NullHandler,{EVIL}"
    with pytest.raises(ConfigError, match=EVIL):
        plan([swept], multirun=True)


@pytest.mark.parametrize(
    "overrides",
    [
        ["hydra/launcher=joblib"],
        ["experiment=tune"],
        ["hydra/job_logging=default", "hydra/hydra_logging=default"],
        ["hydra/job_logging=none"],
        ["hydra/job_logging=stdout"],
        ["+hydra.callbacks.x._target_=hydra.experimental.callbacks.LogJobReturnCallback"],
    ],
)
def test_what_is_installed_can_be_named(overrides: list[str]) -> None:
    assert plan(overrides, multirun=True)


def test_what_a_file_of_a_config_dir_names_is_the_users_own(tmp_path: Path) -> None:
    group = tmp_path / "hydra" / "callbacks"
    group.mkdir(parents=True)
    (group / "mine.yaml").write_text("mine:\n  _target_: mine.Callback\n")
    assert plan(["hydra/callbacks=mine"], multirun=False, config_dir=str(tmp_path))
    with pytest.raises(ConfigError, match=r"hydra\.callbacks\.other\._target_=others\.Callback"):
        plan(
            ["hydra/callbacks=mine", "+hydra.callbacks.other._target_=others.Callback"],
            multirun=False,
            config_dir=str(tmp_path),
        )


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("callbacks.x._target_", EVIL),
        ("job_logging.handlers.x.()", "logging.config.fileConfig"),
        ("job_logging.filters.x.()", EVIL),
    ],
)
def test_what_the_file_names_that_a_command_begins_with_is_refused(
    tmp_path: Path, option: str, named: str
) -> None:
    """It may be the configuration of a run that somebody sent."""
    content: Any = named
    for key in reversed(["hydra", *option.split(".")]):
        content = {key: content}
    sent = {"defaults": ["config", "_self_"], **content}
    (tmp_path / "sent.yaml").write_text(yaml.safe_dump(sent))
    with pytest.raises(ConfigError) as refused:
        plan([], multirun=False, config_dir=str(tmp_path), config_name="sent")
    (line,) = refused.value.errors
    assert line.startswith(f"hydra.{option}={named}: ")
