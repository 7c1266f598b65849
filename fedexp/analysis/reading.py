"""Read the metrics.csv of many runs at a time: numbers by round, and the last of each."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Chosen = int | dict[int, int] | None
"""The round that a run selected, or client -> the round; None where the last one counts."""

COLUMNS = ["round", "model", "split", "subset", "client", "metric", "value"]
_SERIES = ["model", "split", "subset", "metric"]
_WORDS = dict.fromkeys(_SERIES, "category")
_BATCH_BYTES = 8 << 20


def metrics_text(folder: Path, position: dict[str, Any] | None = None) -> bytes:
    """Return the lines of metrics.csv below its head; none where there is no file yet.

    Args:
        folder: The run's.
        position: How many rows and bytes of what hash the file had when the run ended; None if unknown.

    Raises:
        ValueError: If it is not what the run wrote.
    """
    file = folder / "metrics.csv"
    if not file.is_file():
        return b""
    whole = file.read_bytes()
    if position is not None and hashlib.sha256(whole).hexdigest() != position["sha256"]:
        rows = whole.count(b"\n") - 1
        raise ValueError(
            f"metrics.csv was changed since the run ended ({rows} rows now, {position['rows']} then)"
        )
    head, _, content = whole.partition(b"\n")
    if head.decode(errors="replace").rstrip("\r").split(",") != COLUMNS:
        raise ValueError(f"metrics.csv: the columns must be {','.join(COLUMNS)}")
    return content[: content.rfind(b"\n") + 1]  # a run that was cut off may end in half a line


def parse(texts: dict[int, bytes]) -> pd.DataFrame:
    """Return the metrics of several runs in one table: run, and the columns of metrics.csv."""
    types: Any = {**_WORDS, "round": "int64", "client": "Int32", "value": "float64"}
    text = b"".join(texts.values())
    if not text:
        return pd.DataFrame({name: [] for name in ["run", *COLUMNS]}).astype(
            {"run": "int32", **types}
        )
    table = pd.read_csv(io.BytesIO(text), names=COLUMNS, dtype=types)
    lengths = [content.count(b"\n") for content in texts.values()]
    table.insert(0, "run", np.repeat(np.array(list(texts), dtype=np.int32), lengths))
    return table


class Tables:
    """Reads the metrics of many runs at a time: pandas takes milliseconds a call, whatever the size.

    Attributes:
        errors: Run -> why its metrics cannot be read.
    """

    def __init__(self) -> None:
        self.errors: dict[int, Exception] = {}
        self._waiting: dict[int, bytes] = {}
        self._chosen: dict[int, Chosen] = {}
        self._curves: list[pd.DataFrame] = []
        self._finals: list[pd.DataFrame] = []

    def add(self, run: int, text: bytes, chosen: Chosen = None) -> None:
        """Take a run's metrics; the text of few runs is held at a time."""
        self._waiting[run] = text
        if chosen is not None:
            self._chosen[run] = chosen
        if sum(map(len, self._waiting.values())) > _BATCH_BYTES:
            self._read()

    def close(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the curves and finals of all runs; see :class:`Results`."""
        self._read()
        return (
            _concatenated(self._curves, ["run", "round", *_SERIES, "value"]),
            _concatenated(self._finals, ["run", "client", *_SERIES, "value"]),
        )

    def _read(self) -> None:
        try:
            table = parse(self._waiting)
        except ValueError:
            table = parse({run: text for run, text in self._waiting.items() if self._sound(run)})
        self._waiting = {}
        self._curves.append(_curves(table))
        self._finals.append(_finals(table, self._chosen))

    def _sound(self, run: int) -> bool:
        try:
            parse({run: self._waiting[run]})
        except ValueError as error:
            self.errors[run] = error
        return run not in self.errors


def _curves(table: pd.DataFrame) -> pd.DataFrame:
    """Return one number per run, round and series; see :class:`Results`."""
    columns = ["run", "round", *_SERIES, "value"]
    whole = table.loc[table["client"].isna(), columns]
    of_models = table["split"].isin(["test", "val", "client_val"])
    local = table[table["client"].notna() & (table["model"] == "local") & of_models]
    if local.empty:
        return whole
    # A column per client; one that was not sampled in a round keeps the number of the round before.
    series = ["run", *_SERIES]
    wide = local.pivot_table(
        index=[*series, "round"], columns="client", values="value", observed=True, sort=True
    )
    means = wide.groupby(level=series, observed=True).ffill().mean(axis=1).rename("value")
    both = pd.concat([whole, means.reset_index()[columns]])
    return both.sort_values("run", kind="stable")


def _finals(table: pd.DataFrame, chosen: dict[int, Chosen]) -> pd.DataFrame:
    """Return the last number of every series but training's, up to the round that was selected."""
    tested = table[table["split"] != "train"]
    here = {run: last for run, last in chosen.items() if (tested["run"] == run).any()}
    if here:
        whole = {run: last for run, last in here.items() if isinstance(last, int)}
        limit: Any = tested["run"].map(whole).astype("float64").fillna(np.inf)
        for run, last in here.items():
            if isinstance(last, dict):  # of isolated clients, each has a round of its own
                mine = tested["run"] == run
                limit[mine] = tested.loc[mine, "client"].map(last).astype("float64").fillna(-1)
        tested = tested[tested["round"] <= limit]
    return tested.drop_duplicates(["run", *_SERIES, "client"], keep="last").drop(columns="round")


def _concatenated(frames: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """Join frames whose columns of words have categories of their own."""
    for name in _SERIES:
        words = sorted({word for frame in frames for word in frame[name].cat.categories})
        together = pd.CategoricalDtype(words)
        for frame in frames:
            frame[name] = frame[name].astype(together)
    return pd.concat(frames, ignore_index=True)[columns]
