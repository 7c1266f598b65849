"""What ``fedexp tune`` says: how it begins, what it found, and how the best are run again."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedexp.config.spaces import Dimension
from fedexp.config.studies import Study, StudyPlan, Trial, higher_is_better
from fedexp.core import terminal
from fedexp.core.commands import command
from fedexp.core.files import without_secrets
from fedexp.tune.asked import Tuning, seeds, without_seed

EDGE = 0.02
"""Share of a range within which a value counts as lying at its end."""


def begun(folder: Path, tuning: Tuning, plans: Mapping[str, StudyPlan]) -> list[str]:
    """Return what is to be done, a line each."""
    config = next(iter(plans.values())).config
    end = "highest" if higher_is_better(config) else "lowest"
    share = config.dataset.validation
    data = (
        f"held-out training examples (dataset.validation={share:g})"
        if share
        else "test data (dataset.validation=0): the scores of the trials are optimistic"
    )
    return [
        f"{folder}: {tuning.trials} trials of each strategy, then {tuning.final_seeds} fresh seeds",
        f"selected by the {end} {config.objective} on {data}",
        *(f"  {name}: {', '.join(map(str, study.dimensions))}" for name, study in plans.items()),
    ]


def found(name: str, study: Study, study_plan: StudyPlan) -> str:
    """Say in a line what the trials of a strategy came to."""
    trials, best = study.trials, study.best
    lost = sum(trial.value is None for trial in trials)
    rest = f"; {lost} failed or diverged" if lost else ""
    if best is None:
        return f"{name}: no trial of {len(trials)} completed"
    ends = [item.option for item in study_plan.dimensions if _at_end(item, best)]
    if ends:
        rest += f"; {' and '.join(ends)} at the end of the range: a wider one may do better"
    where = f"trials/{name}/{best.number}"
    value = f"{study_plan.config.objective} {best.value:.4g}"
    return f"{name}: {value} in {where}, best of {len(trials)}{rest}"


def say(line: str) -> None:
    """Print a line, broken where the terminal ends."""
    text = textwrap.fill(
        line,
        terminal.width(),
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    print(terminal.printable(text), flush=True)


def _at_end(item: Dimension, best: Trial) -> bool:
    """Say whether the best value lies at an end of its range."""
    value = best.params[item.option]
    if item.choices or not isinstance(value, int | float):
        return False
    turned = [math.log(x) if item.log else float(x) for x in (item.low, value, item.high)]
    share = (turned[1] - turned[0]) / (turned[2] - turned[0])
    return min(share, 1 - share) < EDGE


def winner(tuning: Tuning, study_plan: StudyPlan, best: Trial) -> dict[str, Any]:
    """Return what winners.json says of a strategy."""
    words = [*without_seed(study_plan.fixed), *best.overrides]
    fresh = ",".join(map(str, seeds(tuning, study_plan)))
    given = tuning.files.get("config_dir")
    place = [] if given is None else ["--config-dir", given]
    pasted = command("-m", *place, *words, f"seed={fresh}")
    return {
        "objective": study_plan.config.objective,
        "value": best.value,
        "trial": best.number,
        "params": dict(best.params),
        "command": without_secrets(pasted),
    }
