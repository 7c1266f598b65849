"""What clients have on their own test examples: beside isolated training, and beside fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fedexp.analysis.factors import STRATEGY
from fedexp.analysis.measures import CLIENT_TEST, NEWCOMER_TEST, of_tested_models
from fedexp.analysis.pairing import Pairing
from fedexp.analysis.results import FEDERATED, Results
from fedexp.core.statistics import LEVEL, MIN_SEEDS, half_interval, holm, paired_p_value

FINETUNE = "finetune"
"""The strategy that personalised ones are compared with: FedAvg, then some steps on every client."""

ISOLATED_GAIN, FINETUNE_GAIN, NEWCOMERS_GAIN = "over_isolated", "over_finetune", "newcomers_over"
POINTS = ("own", "own_global", "own_tuned", "newcomers")

YES, NO, OPEN, UNTESTED = "yes", "no", "not shown", "untested"
"""Whether a row beats isolated clients: shown by a test; its mean is not above theirs; above, but by what
may be chance; above, in too few seeds for a test."""

ByClient = dict[int, dict[int, float]]
"""Run -> client -> a number."""


class Personal(NamedTuple):
    """What clients have of their own.

    Attributes:
        table: A row per row of the comparison that has clients with test examples; ``row``, ``runs``, and
            with ``.../ci`` and ``.../n``: ``own`` (mean over clients of the accuracy on their own test
            examples, of the model that each is tested with), ``own_global`` (of the global model, where
            clients have models of their own), ``own_tuned`` (after ``clients.tuned_steps``),
            ``newcomers`` (of clients that took part in no round), ``over_isolated``, ``over_finetune``
            and ``newcomers_over``, differences from isolated clients and from fine-tuning of the same
            seed, partition and settings; ``p_isolated`` and ``p_finetune`` of paired t-tests
            (Holm-adjusted, each over the table); ``beats``: ``yes``, ``no``, ``not shown``, ``untested``.
        finetune: Run -> client -> what the client gains over fine-tuning.
    """

    table: pd.DataFrame
    finetune: ByClient


def personal(found: Results, pairing: Pairing) -> Personal | None:
    """Compare clients' own numbers; None where no run has models for its clients, nor newcomers.

    Args:
        found: Completed runs.
        pairing: Their rows, and what they are compared with.
    """
    finals = found.finals[found.finals["run"].isin(pairing.labels.index)]
    federated = found.runs.index[found.runs["kind"] == FEDERATED]
    of_clients = finals[finals["client"].notna() & finals["run"].isin(federated)]
    local = (of_clients["model"] == "local") & (of_clients["split"] == CLIENT_TEST)
    if not (
        local | (of_clients["split"] == NEWCOMER_TEST) | (of_clients["model"] == "tuned")
    ).any():
        return None
    own, unseen = (
        _by_client(of_tested_models(found, split), found) for split in (CLIENT_TEST, NEWCOMER_TEST)
    )
    of_test = finals[finals["client"].notna() & (finals["split"] == CLIENT_TEST)]
    with_own = set(of_clients.loc[local, "run"])
    at_global = of_test[(of_test["model"] == "global") & of_test["run"].isin(with_own)]
    points = {
        "own": _less_newcomers(own, unseen, pairing),
        "own_global": _by_client(at_global, found),
        "own_tuned": _by_client(of_test[of_test["model"] == "tuned"], found),
        "newcomers": unseen,
    }
    tuned = _finetune_pairs(found, pairing)
    gains = {
        ISOLATED_GAIN: _differences(own, own, pairing.isolated, found.goal.sign),
        FINETUNE_GAIN: _differences(own, own, tuned, found.goal.sign),
        NEWCOMERS_GAIN: _differences(unseen, own, pairing.isolated, found.goal.sign),
    }
    table = _table(found, pairing, points, gains)
    return Personal(table, gains[FINETUNE_GAIN])


def with_finetune(gains: pd.DataFrame, own: Personal | None) -> pd.DataFrame:
    """Add to gains over isolated clients the column ``gain_finetune``, where there is any."""
    if own is None:
        return gains
    pairs = zip(gains["run"], gains["client"], strict=True)
    over = [own.finetune.get(run, {}).get(client, math.nan) for run, client in pairs]
    return gains.assign(gain_finetune=pd.Series(over, index=gains.index, dtype="float64"))


def verdict(personal_table: pd.DataFrame) -> list[str]:
    """Say in sentences which rows beat isolated clients on their own examples."""
    said: dict[str, list[str]] = {}
    for row, beats in zip(personal_table["row"], personal_table["beats"], strict=True):
        if beats:
            said.setdefault(str(beats), []).append(str(row))
    words = {
        YES: f"these rows beat isolated clients (p < {LEVEL:g})",
        OPEN: "these are above isolated clients, but are not shown to beat them",
        UNTESTED: f"these are above isolated clients, in fewer than {MIN_SEEDS} seeds",
        NO: "these do not beat isolated clients",
    }
    return [
        f"On the clients' own test examples, {words[key]}: {', '.join(said[key])}."
        for key in words
        if key in said
    ]


def _by_client(finals: pd.DataFrame, found: Results) -> ByClient:
    chosen = finals[(finals["metric"] == found.goal.metric) & (finals["subset"] == "all")]
    values: ByClient = {}
    rows = zip(chosen["run"], chosen["client"].astype(int), chosen["value"], strict=True)
    for run, client, value in rows:
        values.setdefault(int(run), {})[int(client)] = float(value)
    return values


def _less_newcomers(own: ByClient, unseen: ByClient, pairing: Pairing) -> ByClient:
    """Leave newcomers out of isolated runs, so that all rows are about the same clients."""
    left: dict[int, set[int]] = {}
    for run, alone in pairing.isolated.items():
        left.setdefault(alone, set()).update(unseen.get(run, ()))
    return {
        run: {client: value for client, value in mine.items() if client not in left.get(run, ())}
        for run, mine in own.items()
    }


def _finetune_pairs(found: Results, pairing: Pairing) -> dict[int, int]:
    """Return run -> the run of fine-tuning of the same seed, partition and settings."""
    runs = [int(run) for run in pairing.labels.index]
    tuned = {pairing.key(r): r for r in runs if found.runs.at[r, STRATEGY] == FINETUNE}
    pairs = {run: tuned.get(pairing.key(run)) for run in runs}
    return {run: other for run, other in pairs.items() if other is not None and other != run}


def _differences(mine: ByClient, others: ByClient, pairs: Mapping[int, int], sign: int) -> ByClient:
    """Return what clients gain over the runs that theirs are compared with."""
    return {
        run: {
            client: sign * (value - others[other][client])
            for client, value in mine[run].items()
            if client in others[other]
        }
        for run, other in pairs.items()
        if run in mine and other in others
    }


def _table(
    found: Results, pairing: Pairing, points: Mapping[str, ByClient], gains: Mapping[str, ByClient]
) -> pd.DataFrame:
    lines = []
    for name in dict.fromkeys(pairing.labels):
        runs = [int(run) for run in pairing.labels.index[pairing.labels == name]]
        line: dict[str, Any] = {"row": name, "runs": len(runs)}
        means = {column: _means(values, runs) for column, values in {**points, **gains}.items()}
        for column, numbers in means.items():
            line |= _estimate(column, numbers)
        one_a_seed = not found.runs["seed"].loc[runs].duplicated().any()
        for column, gain in (("p_isolated", ISOLATED_GAIN), ("p_finetune", FINETUNE_GAIN)):
            pairs = means[gain] if one_a_seed and len(means[gain]) >= MIN_SEEDS else []
            line[column] = paired_p_value(pairs) if pairs else math.nan
        lines.append(line)
    table = pd.DataFrame(lines)
    for column in ("p_isolated", "p_finetune"):
        table[column] = holm(table[column].tolist())
    beats = [_beats(*pair) for pair in zip(table[ISOLATED_GAIN], table["p_isolated"], strict=True)]
    return table.assign(beats=beats)[table["own"].notna()].reset_index(drop=True)


def _means(values: ByClient, runs: Sequence[int]) -> list[float]:
    """Return the mean over clients of every run that has any."""
    return [float(np.mean(list(values[run].values()))) for run in runs if values.get(run)]


def _estimate(column: str, numbers: Sequence[float]) -> dict[str, float]:
    return {
        column: float(np.mean(numbers)) if numbers else math.nan,
        f"{column}/ci": half_interval(list(numbers)),
        f"{column}/n": len(numbers),
    }


def _beats(gain: float, p_value: float) -> str:
    if math.isnan(gain):
        return ""
    if gain <= 0:
        return NO
    if math.isnan(p_value):
        return UNTESTED
    return YES if p_value < LEVEL else OPEN
