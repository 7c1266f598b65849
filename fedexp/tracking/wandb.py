"""One W&B run per experiment run, in the process that drives it; the only module that imports wandb."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

import pandas as pd

from fedexp.config.schema import config_bytes
from fedexp.config.tracking import TrackingConfig
from fedexp.core.files import without_secrets
from fedexp.core.options import AUTO, FedexpError
from fedexp.federation.events import Ending, RunInfo
from fedexp.tracking import wandb_internals

log = logging.getLogger("fedexp")

ONLINE, OFFLINE, DISABLED = "online", "offline", "disabled"
_MODES = {ONLINE: ONLINE, "run": ONLINE, OFFLINE: OFFLINE, "dryrun": OFFLINE, DISABLED: DISABLED}

INIT_SECONDS, FINISH_SECONDS = 20.0, 30.0
"""How long the server may take to answer at the start, and uploads at the end."""

MAX_TAG = 64
_MOST = {"run_name": 128, "run_group": 128, "entity": 128, "run_job_type": 64, "run_id": 90}
"""Characters that W&B's server takes, which its client does not look at; an id is part of the names of
tables and models, which have 128 at most."""

_unreachable: list[str] = []
"""Why the server could not be had, once that is known: later runs of the process need not wait."""


def wandb_mode(tracking: TrackingConfig) -> str:
    """Return ``online``, ``offline`` or ``disabled``; ``WANDB_MODE`` wins over ``tracking.mode``.

    Raises:
        FedexpError: If ``WANDB_MODE`` is none of W&B's modes that fit a run of its own, or the mode is
            online and no key is configured.
    """
    told = os.environ.get("WANDB_MODE", "").lower()
    if told and told not in _MODES:
        raise FedexpError(f"WANDB_MODE must be online, offline or disabled, got {told!r}")
    mode = _MODES[told] if told else tracking.mode
    if mode == AUTO:
        return ONLINE if not _unreachable and _has_key() else OFFLINE
    if mode == ONLINE and not _has_key():
        option = "WANDB_MODE" if told else "tracking.mode"
        raise FedexpError(
            f"{option}=online needs a W&B key: run `wandb login` or set WANDB_API_KEY, "
            "or use tracking.mode=offline"
        )
    return mode


def _has_key() -> bool:
    """Look for a key where W&B would, without asking for one or writing anything."""
    import wandb

    try:
        return wandb_internals.has_key()
    except wandb.errors.AuthenticationError as error:
        raise FedexpError(f"the configured W&B key cannot be used: {_first_line(error)}") from error


def ensure_names(tracking: TrackingConfig) -> None:
    """Refuse tags and names that W&B would not take, which it says only when a run begins.

    Raises:
        FedexpError: With a line for each, that has W&B's limit.
    """
    import wandb

    told: dict[str, tuple[str, Any]] = {
        "tracking.tags": ("run_tags", list(tracking.tags)),
        "tracking.project": ("project", tracking.project),
        "tracking.entity": ("entity", tracking.entity),
        "tracking.group": ("run_group", tracking.group),
        "tracking.job_type": ("run_job_type", tracking.job_type),
        "tracking.name": ("run_name", tracking.name),
        "WANDB_PROJECT": ("project", os.environ.get("WANDB_PROJECT")),
        "WANDB_NAME": ("run_name", os.environ.get("WANDB_NAME")),
        "WANDB_RUN_GROUP": ("run_group", os.environ.get("WANDB_RUN_GROUP")),
        "WANDB_JOB_TYPE": ("run_job_type", os.environ.get("WANDB_JOB_TYPE")),
        "WANDB_ENTITY": ("entity", os.environ.get("WANDB_ENTITY")),
        "WANDB_RUN_ID": ("run_id", os.environ.get("WANDB_RUN_ID")),
        "WANDB_TAGS": ("run_tags", [t for t in os.environ.get("WANDB_TAGS", "").split(",") if t]),
    }
    errors = []
    for option, (setting, value) in told.items():
        if value:
            try:
                wandb.Settings(**{setting: value})
            except wandb.errors.UsageError as error:
                errors.append(f"{option}: {' '.join(str(error).split())}")
            except ValueError as error:  # pydantic's, which knows of every tag by itself
                lines = [found["msg"] for found in getattr(error, "errors", list)()]
                errors += [f"{option}: {line.removeprefix('Value error, ')}" for line in lines]
        most = _MOST.get(setting, math.inf)
        if value and len(value) > most:
            errors.append(f"{option}: W&B takes {most} characters at most, got {len(value)}")
    if errors:
        raise FedexpError("\n".join(errors))


def run_id(run: RunInfo) -> str:
    """Return the W&B id: the same for the same configuration in the same folder."""
    content = config_bytes(run.config) + str(run.folder.resolve()).encode()
    return hashlib.sha256(content).hexdigest()[:16]


class WandbMirror:
    """Scalars by round, and at the end the summary, pictures, tables and, if asked for, the model."""

    def __init__(self, run: RunInfo) -> None:
        self._info = run
        self._said: list[str] = []
        if run.sweep is not None and os.environ.get("WANDB_RUN_ID"):
            self._said.append("  W&B: WANDB_RUN_ID is for single runs, this one has its own id")
        known = (run.resume or {}).get("trackers", {})
        self.id: str = known.get("W&B") or run_id(run)
        if run.resume:
            _set_aside(run.folder / "wandb")
        self._run = self._open(wandb_mode(run.config.tracking))
        self.id = self._run.id
        self.wants_past = bool(self._run.offline)
        self._run.define_metric("round", hidden=True)
        self._run.define_metric("*", step_metric="round")

    def on_round(self, server_round: int, numbers: Mapping[str, float]) -> None:
        """Queue the round's numbers; W&B's own process sends them."""
        self._run.log({"round": server_round, **numbers})

    def finish(self, ending: Ending) -> list[str]:
        """Add what is known at the end, and wait until it is sent, for :data:`FINISH_SECONDS` at most."""
        run, offline = self._run, self._run.offline
        address = None if offline else run.url
        complete = self._add_ending(ending)
        try:
            run.finish(exit_code=0 if ending.summary["status"] == "completed" else 1)
        except TimeoutError:
            complete = False
        sync = f"wandb sync {quote(os.path.relpath(run.sync_dir))}"
        if offline and complete:  # a multirun has one line for all of its runs: sync_line
            several = self._info.sweep is not None
            return self._said if several else [*self._said, f"  W&B, offline: {sync}"]
        if not complete:
            _unreachable.append("it did not take all of a run")
            return [*self._said, f"  W&B did not receive all of this run: {sync}"]
        return [*self._said, f"  W&B: {address}"]

    def _add_ending(self, ending: Ending) -> bool:
        """Log what the ending has; False if W&B would not take all of it, as without its server."""
        self._run.summary.update(_summary(ending.summary))
        last = ending.summary.get("rounds", 0)
        try:
            with _staged_in(self._info.folder):
                # Pictures first: tables and models are artifacts, for which the server is asked.
                self._run.log({"round": last, **_pictures(ending, self._info.folder)})
                self._run.log({"round": last, **self._tables(ending)})
                if self._info.config.tracking.log_model:
                    self._log_model()
        except Exception:
            log.exception("W&B did not take all of this run's ending")
            return False
        return True

    def _open(self, mode: str) -> Any:
        import wandb

        try:
            return self._init(mode)
        except wandb.errors.CommError as error:
            reason = _first_line(error)
            if mode != ONLINE or self._asked_for_online():
                raise FedexpError(
                    f"W&B cannot be reached: {reason}; tracking.mode=offline needs no network"
                ) from error
        _unreachable.append(reason)
        wandb.teardown()  # its service process still holds the run's id
        log.warning("W&B cannot be reached, this run goes on offline: %s", reason)
        self._said.append(f"  W&B could not be reached, the run was kept offline: {reason}")
        return self._init(OFFLINE)

    def _asked_for_online(self) -> bool:
        told = os.environ.get("WANDB_MODE") or self._info.config.tracking.mode
        return told != AUTO

    def _init(self, mode: str) -> Any:
        import wandb

        in_sweep = "WANDB_SWEEP_ID" in os.environ  # whose agent decides where its runs belong
        settings: dict[str, Any] = {"silent": True, "console": "off"}
        for name, seconds in (("init_timeout", INIT_SECONDS), ("finish_timeout", FINISH_SECONDS)):
            if f"WANDB_{name.upper()}" not in os.environ:
                settings[name] = seconds
        settings["finish_timeout_raises"] = True
        arguments = {} if in_sweep else self._whereabouts()
        if mode == ONLINE and not in_sweep:
            arguments["resume"] = "allow"
        with _argv_without_secrets():
            return wandb.init(
                mode=mode,  # type: ignore[arg-type]
                dir=str(self._info.folder),
                config=asdict(self._info.config),
                reinit="create_new",
                settings=wandb.Settings(**settings),
                **self._labels(),
                **arguments,
            )

    def _whereabouts(self) -> dict[str, Any]:
        tracking = self._info.config.tracking
        several = self._info.sweep is not None  # an id that is told is that of one run
        return {
            "project": tracking.project or _unless_set("WANDB_PROJECT", "fedexp"),
            "entity": tracking.entity,
            "id": self.id if several else _unless_set("WANDB_RUN_ID", self.id),
        }

    def _labels(self) -> dict[str, Any]:
        config, info = self._info.config, self._info
        names = [config.strategy.name, config.dataset.name, config.partition.name]
        own = [name[:MAX_TAG] for name in names]
        tags = list(dict.fromkeys([*own, *config.tracking.tags]))
        return {
            "group": config.tracking.group or _unless_set("WANDB_RUN_GROUP", _cut(info.sweep)),
            "job_type": config.tracking.job_type
            or _unless_set("WANDB_JOB_TYPE", config.strategy.kind),
            "name": config.tracking.name or _unless_set("WANDB_NAME", _cut(info.name)),
            "tags": tags if config.tracking.tags else _unless_set("WANDB_TAGS", tags),
        }

    def _tables(self, ending: Ending) -> dict[str, Any]:
        import wandb

        tables: dict[str, Any] = {}
        if ending.clients:
            tables["clients/table"] = wandb.Table(dataframe=pd.DataFrame(list(ending.clients)))
        confusion = (ending.confusion or {}).get(None)
        if confusion is not None:
            pairs = [
                (true, predicted)
                for true, row in enumerate(confusion.tolist())
                for predicted, images in enumerate(row)
                for _ in range(images)
            ]
            tables["confusion"] = wandb.plot.confusion_matrix(
                y_true=[true for true, _ in pairs],
                preds=[predicted for _, predicted in pairs],
                class_names=list(self._info.config.dataset.spec.classes),
                title="Global model on the test set",
            )
        return tables

    def _log_model(self) -> None:
        import wandb

        path = self._info.folder / "model.safetensors"
        if path.is_file():
            artifact = wandb.Artifact(f"model-{self._run.id}", type="model")
            for file in (path, path.with_name("best.safetensors")):
                if file.is_file():
                    artifact.add_file(str(file), policy="immutable", skip_cache=True)
            self._run.log_artifact(artifact, aliases=["final"])


def _pictures(ending: Ending, folder: Path) -> dict[str, Any]:
    import wandb

    return {
        f"pictures/{name}": wandb.Image(str(folder / f"{name}.png")) for name in ending.pictures
    }


def _cut(name: str | None) -> str | None:
    """Shorten a name that comes from a folder in the middle: its end tells runs apart."""
    most = _MOST["run_name"]
    if name is None or len(name) <= most:
        return name
    half = most // 2 - 1
    return f"{name[:half]}..{name[-half:]}"


def _unless_set(variable: str, default: Any) -> Any:
    """Return None, which leaves the choice to W&B, where its environment variable is set."""
    return None if os.environ.get(variable) else default


def _summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten summary.json: ``final/accuracy``, ``final/accuracy/<subset>``, ``best/accuracy``, ..."""
    plain = ("status", "rounds", "stopped_early", "seconds", "error", "model_sha256", "selected_on")
    found = {name: summary[name] for name in (*plain, "partition_sha256") if name in summary}
    for subset, metrics in summary.get("final", {}).items():
        for name, value in metrics.items():
            found[f"final/{name}" if subset == "all" else f"final/{name}/{subset}"] = value
    best = dict(summary.get("best", {}))
    found |= {f"best/{name}": v for name, v in best.items() if not isinstance(v, dict)}
    found |= {f"best/{name}": v for name, v in best.get("test", {}).get("all", {}).items()}
    found |= {f"best/validation/{name}": v for name, v in best.get("validation", {}).items()}
    found |= {f"fairness/{name}": v for name, v in summary.get("fairness", {}).items()}
    if summary.get("selected_by"):
        found["selected_by"] = ", ".join(summary["selected_by"])
    return found


def _set_aside(folder: Path) -> None:
    """Rename what was kept offline before a resumption: the new file has all of it."""
    for old in folder.glob("offline-run-*"):
        old.rename(old.with_name(f"before-resuming-{old.name}"))


@contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """Let W&B prepare files in the run's folder, not in the user's home."""
    if "WANDB_DATA_DIR" in os.environ:
        yield
        return
    os.environ["WANDB_DATA_DIR"] = str(folder / "wandb")
    try:
        yield
    finally:
        del os.environ["WANDB_DATA_DIR"]


@contextmanager
def _argv_without_secrets() -> Iterator[None]:
    """Hide keys on the command line, which W&B notes in a run's metadata."""
    told = sys.argv
    sys.argv = [without_secrets(argument) for argument in told]
    try:
        yield
    finally:
        sys.argv = told


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
