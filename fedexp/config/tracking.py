"""Tracking: where a run's metrics go besides its folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from fedexp.core.options import AUTO, one_of


@dataclass(frozen=True)
class TrackingConfig:
    """Mirrors of the run's folder; ``tracking=[wandb,tensorboard]`` keeps both.

    The options after ``tensorboard`` belong to W&B. W&B's own environment variables win over the values
    that the run gives to an option that is null.
    """

    wandb: bool = False
    """Mirror the run to Weights & Biases; set by tracking=wandb."""
    tensorboard: bool = False
    """Mirror the run to TensorBoard event files in its folder; set by tracking=tensorboard."""
    mode: str = one_of(AUTO, AUTO, "online", "offline", "disabled")
    """Where W&B's data go; auto is online where a key is configured, else offline. WANDB_MODE
    wins."""
    project: str | None = None
    """W&B project; null is fedexp."""
    entity: str | None = None
    """W&B user or team; null is the key's own."""
    group: str | None = None
    """W&B group of the run; null is the multirun's name."""
    job_type: str | None = None
    """W&B job type; null is the strategy's kind, such as federated."""
    name: str | None = None
    """W&B name of the run; null is made of the run's folder."""
    tags: list[str] = field(default_factory=list)
    """W&B tags, beside strategy, dataset and partition."""
    log_model: bool = False
    """Send the final model to W&B as an artifact."""

    def idle_options(self) -> list[str]:
        """Return the options that are set although nothing reads them."""
        if self.wandb:
            return []
        mine = ("wandb", "tensorboard")
        unset = TrackingConfig()
        names = [item.name for item in dataclasses.fields(self) if item.name not in mine]
        return [name for name in names if getattr(self, name) != getattr(unset, name)]
