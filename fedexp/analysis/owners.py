"""What clients have that the data name, such as hospitals: each on test examples of its own."""

from __future__ import annotations

from typing import Any

import pandas as pd

from fedexp.analysis import cells, factors, results
from fedexp.analysis.grid import Row
from fedexp.analysis.measures import of_tested_models, others
from fedexp.analysis.results import Results

OWNER, EXAMPLES = "owner", "tested on"

MAX_ROWS = 60


def by_owner(found: Results, labels: pd.Series, dealt_anew: set[str]) -> pd.DataFrame:
    """Return a row per row of a comparison and client that the data name.

    Args:
        found: The runs.
        labels: Row of every run that was compared.
        dealt_anew: Rows whose runs have different partitions; these are left out.

    Returns:
        ``row``, ``client``, ``owner`` (its name), ``tested on`` (how many examples), and every metric on
        these, means over runs; NaN for a client without test examples.
    """
    metrics = [found.goal.metric, *others(found)]
    columns = ["row", "client", OWNER, EXAMPLES, *metrics]
    tested = of_tested_models(found)
    own = tested[tested["subset"] == "all"]
    frames = [pd.DataFrame(columns=columns)]
    for row, runs in labels.groupby(labels, sort=False).groups.items():
        told = results.partition(found.path(int(runs[0])))
        if not told.get("owners") or row in dealt_anew:
            continue
        mine = own[own["run"].isin(runs)].astype({"client": int})
        means: Any = mine.groupby(["client", "metric"], observed=True)["value"].mean()
        wide = means.unstack("metric").reindex(index=range(len(told["owners"])), columns=metrics)
        who = {"row": row, OWNER: told["owners"], EXAMPLES: told["num_test_examples"]}
        frames.append(wide.assign(**who).rename_axis("client").reset_index())
    together = pd.concat(frames[1:] or frames, ignore_index=True)
    return together.rename_axis(None, axis=1)[columns]


def owner_rows(own: pd.DataFrame, table: pd.DataFrame, keys: list[str]) -> list[Row]:
    """Return the rows of a table: owner by owner, below one another what each strategy does for it.

    Args:
        own: What :func:`by_owner` returned.
        table: The comparison's.
        keys: Its factors.
    """
    if own.empty or len(own) > MAX_ROWS:
        return []
    named = table.set_index("row")
    metrics = [c for c in own if c not in ("row", "client", OWNER, EXAMPLES)]
    ordered = own.sort_values("client", kind="stable")
    return [
        {
            OWNER: str(row[OWNER]),
            **{factors.title(key): factors.shown(named.at[row["row"], key]) for key in keys},
            EXAMPLES: str(row[EXAMPLES]),
            **{f"its {name}": cells.plain(float(row[name])) for name in metrics},
        }
        for row in ordered.to_dict("records")
    ]
