"""Mirrors of a run's folder, for dashboards: W&B and TensorBoard, one or both.

The folder is the truth, so a mirror can fail without harm: what goes wrong in one is noted in run.log,
said once at the end of the run, and ends that mirror alone.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from fedexp.config.schema import Config
from fedexp.config.tracking import TrackingConfig
from fedexp.core.options import FedexpError
from fedexp.strategies.options import CentralizedStrategy, LocalOnlyStrategy
from fedexp.tracking.run_folder import RoundReport
from fedexp.tracking.scalars import Curves

log = logging.getLogger("fedexp")


@dataclass(frozen=True)
class RunInfo:
    """What a mirror is told of the run before it starts.

    Attributes:
        config: The run's configuration.
        run_dir: Its folder, which exists.
        sweep: Name of the multirun that it is part of, if any.
    """

    config: Config
    run_dir: Path
    sweep: str | None

    @property
    def kind(self) -> str:
        """``federated``, ``isolated`` or ``centralized``."""
        if isinstance(self.config.strategy, LocalOnlyStrategy):
            return "isolated"
        if isinstance(self.config.strategy, CentralizedStrategy):
            return "centralized"
        return "federated"

    @property
    def name(self) -> str:
        """Strategy, partition and seed, as in ``fedavg-dir0.3-s1``."""
        config = self.config
        return f"{config.strategy.name}-{config.partition.label}-s{config.seed}"


@dataclass(frozen=True)
class Ending:
    """What a mirror is told of the run once its folder is complete.

    Attributes:
        summary: What stands in summary.json.
        clients: A row per client; see :func:`client_rows`.
        confusion: Images per true label (row) and predicted label (column) of the one global model;
            None where there is no such model.
        pictures: Name -> PNG file, of those that the run drew.
    """

    summary: Mapping[str, Any]
    clients: list[dict[str, Any]]
    confusion: list[list[int]] | None
    pictures: dict[str, Path]


class Mirror(Protocol):
    """What a tracker has to do."""

    def on_round(self, server_round: int, figures: Mapping[str, float]) -> None:
        """Take in figures of a round, each under its name; a round may come in several parts."""

    def finish(self, ending: Ending) -> list[str]:
        """Take in how the run ended, and close; return what the user should be told, a line each."""


def ensure(config: TrackingConfig) -> None:
    """Refuse what cannot be tracked here, before anything is started or written.

    Raises:
        FedexpError: If a package is absent, or W&B is to be online and has no key.
    """
    if config.tensorboard and find_spec("tensorboard") is None:
        raise FedexpError(
            "tracking=tensorboard needs the package tensorboard: pip install 'fedexp[tensorboard]'"
        )
    if config.wandb:
        from fedexp.tracking.wandb import wandb_mode

        wandb_mode(config)


class Trackers:
    """All mirrors of one run, each on its own."""

    def __init__(self, config: Config, run_dir: Path, sweep: str | None) -> None:
        self._run = RunInfo(config, run_dir, sweep)
        self._curves = Curves()
        self._mirrors: dict[str, Mirror] = {}
        self._said: list[str] = []

    def open(self) -> None:
        """Open the mirrors that the configuration asks for.

        Raises:
            FedexpError: If one of them cannot be had at all; see :func:`ensure`.
        """
        tracking = self._run.config.tracking
        ensure(tracking)
        if tracking.wandb:
            self._guard("W&B", self._open_wandb)
        if tracking.tensorboard:
            self._guard("TensorBoard", self._open_tensorboard)

    def on_round(self, report: RoundReport) -> None:
        """Mirror a round."""
        figures = self._curves.of(report)
        if not figures:
            return
        for name, mirror in list(self._mirrors.items()):
            self._guard(name, partial(mirror.on_round, report.server_round, figures))

    def finish(self, summary: Mapping[str, Any]) -> list[str]:
        """End every mirror; return what the user should be told, a line each."""
        if self._mirrors:
            ending = self._ending(summary)
            for name, mirror in list(self._mirrors.items()):
                self._guard(name, partial(self._finish, mirror, ending))
        return self._said

    def _finish(self, mirror: Mirror, ending: Ending) -> None:
        self._said += mirror.finish(ending)

    def _open_wandb(self) -> None:
        from fedexp.tracking.wandb import WandbMirror, wandb_mode

        if wandb_mode(self._run.config.tracking) != "disabled":
            self._mirrors["W&B"] = WandbMirror(self._run)

    def _open_tensorboard(self) -> None:
        from fedexp.tracking.tensorboard import TensorBoardMirror

        self._mirrors["TensorBoard"] = TensorBoardMirror(self._run)

    def _guard(self, name: str, step: Callable[[], None]) -> None:
        try:
            step()
        except FedexpError:
            raise
        except Exception as error:
            self._mirrors.pop(name, None)
            log.exception("%s failed", name)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._said.append(
                f"  {name} has not all of this run: {reason} (run.log has more; the folder is complete)"
            )

    def _ending(self, summary: Mapping[str, Any]) -> Ending:
        run_dir = self._run.run_dir
        pictures = {name: run_dir / f"{name}.png" for name in ("confusion", "partition")}
        return Ending(
            summary,
            client_rows(run_dir, self._curves.clients),
            _global_confusion(run_dir / "confusion.csv"),
            {name: path for name, path in pictures.items() if path.is_file()},
        )


def client_rows(run_dir: Path, scores: Mapping[int, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return a row per client, for tables on dashboards.

    Args:
        run_dir: The run's folder; without its partition.json there are no rows.
        scores: Partition id -> the client's last accuracy and loss on its own test images.

    Returns:
        ``client``, ``images``, ``test_images``, ``labels`` (held, joined by blanks), ``accuracy`` and
        ``loss`` (None for a client without test images).
    """
    path = run_dir / "partition.json"
    if not path.is_file():
        return []
    dealt = json.loads(path.read_text())
    return [
        {
            "client": client,
            "images": images,
            "test_images": dealt["num_test_examples"][client],
            "labels": " ".join(str(k) for k, n in enumerate(dealt["class_counts"][client]) if n),
            "accuracy": scores.get(client, {}).get("accuracy"),
            "loss": scores.get(client, {}).get("loss"),
        }
        for client, images in enumerate(dealt["num_examples"])
    ]


def _global_confusion(path: Path) -> list[list[int]] | None:
    if not path.is_file():
        return None
    with path.open(newline="") as file:
        _, *rows = csv.reader(file)
    return [[int(count) for count in row[2:]] for row in rows if row[0] == ""] or None
