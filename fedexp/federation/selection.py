"""On which data a run selects, what it selects, and what is to be said of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedexp.config.schema import Config
from fedexp.core.statistics import fairness
from fedexp.federation.evaluation import Scores, ServerEvaluation
from fedexp.federation.outcome import Outcome, of_choices
from fedexp.federation.scoring import deciding
from fedexp.metrics import sign_of

VALIDATION, TEST = "validation", "test"
"""What ``selected_on`` in summary.json may be."""


def selected_on(config: Config) -> str:
    """Return on which data the best round, early stopping and ``objective`` are decided."""
    return VALIDATION if config.dataset.validation else TEST


def selected_by(config: Config) -> list[str]:
    """Return the options by which a run selects beyond naming its best round."""
    found = []
    if config.stop.patience is not None:
        found.append(f"stop.patience={config.stop.patience}")
    if config.objective == f"best_{config.task.headline}":
        found.append(f"objective={config.objective}")
    return found


def selection_notes(config: Config, summary: Mapping[str, Any]) -> list[str]:
    """Say on what was selected, in a line."""
    best, by = summary["best"], summary["selected_by"]
    if summary["selected_on"] == VALIDATION:
        metric, judged = best["metric"], config.task.headline
        what = f"{metric} {best['validation'][metric]:.3f} on held-out data"
        when = f"round {best['round']}" if "rounds" not in best else "each client's own best round"
        return [f"selected on validation data: {when} ({what}), test {judged} {best[judged]:.3f}"]
    if by:
        return [
            f"selected on test data ({', '.join(by)}): its scores are optimistic; dataset.validation=0.1 "
            "selects on held-out data"
        ]
    return []


def untold_best(config: Config, outcome: Outcome) -> dict[str, Any]:
    """Return what summary.json says of the best round where nothing is held out."""
    return {"round": outcome.best_round, config.task.headline: outcome.best_value}


def best_of(config: Config, evaluation: ServerEvaluation, outcome: Outcome) -> dict[str, Any]:
    """Return what summary.json says of the best models.

    The test data are asked once about models that validation has chosen: here.
    """
    judged = config.task.headline
    if not outcome.val:
        return untold_best(config, outcome)
    models = of_choices(outcome.chosen)
    tested = [evaluation.scores(weights) for weights in models.values()]
    known = evaluation.validation(models)
    judges = [found for owner in known if (found := deciding(owner, known[owner])) is not None]
    own: list[float] = []
    for owner, weights in models.items():
        clients = evaluation.listed if owner is None else [owner]
        own += [n[judged] for n in evaluation.client_validation(weights, clients).values()]
    rounds = {str(k): choice.round for k, choice in outcome.chosen.items() if k is not None}
    scores = means(tested)
    worst = fairness(own, higher_is_better=sign_of(judged) > 0)["worst10"]
    return {
        "round": max(choice.round for choice in outcome.chosen.values()),
        **({"rounds": rounds} if rounds else {}),
        judged: scores["all"][judged],
        "metric": config.stop.metric,
        "validation": means([{"all": numbers} for numbers in judges])["all"],
        **({"validation_worst10": worst} if own else {}),
        "test": scores,
    }


def means(models: Sequence[Scores]) -> Scores:
    """Return subset -> metric -> value of the one model, or the mean over local ones."""
    return {
        subset: {
            metric: sum(scores[subset][metric] for scores in models) / len(models)
            for metric in models[0][subset]
        }
        for subset in models[0]
    }
