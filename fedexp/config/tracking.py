"""Tracking: where a run's metrics go besides its folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from fedexp.core.options import AUTO, one_of


@dataclass(frozen=True)
class TrackingConfig:
    """Mirrors of the run's folder; ``tracking=[wandb,tensorboard]`` keeps both.

    The options after ``tensorboard`` belong to W&B. An option that is null gets a value from the run
    (docs/tracking.md lists them). W&B's own environment variables win over those values, and
    ``WANDB_MODE`` wins over ``mode``.
    """

    wandb: bool = False
    tensorboard: bool = False
    mode: str = one_of(AUTO, AUTO, "online", "offline", "disabled")
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    job_type: str | None = None
    name: str | None = None
    tags: list[str] = field(default_factory=list)
    log_model: bool = False

    def idle_options(self) -> list[str]:
        """Return the options that are set although nothing reads them."""
        if self.wandb:
            return []
        mine = ("wandb", "tensorboard")
        unset = TrackingConfig()
        names = [item.name for item in dataclasses.fields(self) if item.name not in mine]
        return [name for name in names if getattr(self, name) != getattr(unset, name)]
