"""Mirrors of a run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedexp.config import Config
from fedexp.records import RoundReport


class Trackers:
    """All trackers of a run."""

    def __init__(self, config: Config, run_dir: Path, sweep: str | None) -> None:
        pass

    def on_round(self, report: RoundReport) -> None:
        """Mirror a round."""

    def finish(self, summary: Mapping[str, Any]) -> list[str]:
        """End every tracker; return what the user should be told, a line each."""
        return []
