"""What fedexp needs of wandb beside its public interface."""

from __future__ import annotations

from pathlib import Path

import pytest
import wandb

from fedexp.tracking import wandb_internals


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide this user's keys."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


@pytest.mark.usefixtures("nobody")
def test_a_key_is_found_without_asking_for_one_or_writing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not wandb_internals.has_key()
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    wandb.teardown()
    assert wandb_internals.has_key()
    wandb.teardown()
    assert not (tmp_path / "netrc").exists()
