"""What paired tests come to, in sentences."""

from __future__ import annotations

from typing import Any

from fedexp.analysis.comparison import Comparison
from fedexp.analysis.rows import Estimate, brief
from fedexp.core.statistics import LEVEL, MIN_SEEDS


def paired_tests(comparison: Comparison) -> list[str]:
    """Return a sentence for every row that is tested against the baseline, or why there is none."""
    table: Any = comparison.table.set_index("row")
    if len(table) < 2:
        return ["No paired test: there is only one row."]
    if comparison.baseline is None:
        return ["No paired test: no row has the baseline's name; --baseline ROW chooses one."]
    others = table[table["baseline"] != table.index]
    tested = others[others["p_value"].notna()]
    if tested.empty:
        return [
            f"No paired test: no row with one run per seed shares {MIN_SEEDS} seeds on the same "
            f"partition with {brief(comparison.baseline)}."
        ]
    said = []
    for row, p in tested["p_value"].items():
        verdict = "differs from" if p < LEVEL else "is not shown to differ from"
        level = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        base = str(table.at[row, "baseline"])
        change = Estimate(float(table.at[row, "p_difference"])).number(signed=True)
        over = f"over the {table.at[row, 'p_seeds']:g} seeds that both have"
        said.append(f"{brief(row)} {verdict} {brief(base)}: {change} {over}, {level}.")
    left = [brief(str(row)) for row in others.index if row not in tested.index]
    if left:
        said.append(
            f"Not tested (fewer than {MIN_SEEDS} seeds in common, or several runs of one seed in a row): "
            f"{', '.join(left)}."
        )
    return said
