"""What is said of the final models: their weights, confusion matrices, what they do for each client.

The clients' shares of the test examples are scored here for every client, in this process, also where
``clients.fraction_evaluate`` lets none or few of them evaluate: a simulation can tell, and who is
served badly is half of what it is for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fedexp.config.schema import Config
from fedexp.core.drawing import Draw, ahead
from fedexp.core.pictures import confusion_png, drawn, partition_png
from fedexp.core.statistics import fairness
from fedexp.core.weights import hash_weights, named
from fedexp.federation.dealing import client_rows
from fedexp.federation.evaluation import ClientScores, Models, NodeEvaluation, ServerEvaluation
from fedexp.federation.events import COMPLETED, DIVERGED, Ending, Measurement
from fedexp.federation.faults import byzantine_clients
from fedexp.federation.outcome import Outcome, of_choices
from fedexp.federation.selection import (
    VALIDATION,
    best_of,
    means,
    selected_by,
    selected_on,
    selection_notes,
    untold_best,
)
from fedexp.federation.shares import client_scores, newcomers, of_chosen, of_further_points
from fedexp.metrics import sign_of


def head(config: Config, status: str) -> dict[str, Any]:
    """Return how summary.json begins, while a run goes on and once it is over."""
    strategy, lower = config.strategy, [name for name in config.measured if sign_of(name) < 0]
    return {
        "status": status,
        "strategy": strategy.name,
        "kind": strategy.kind,
        "seed": config.seed,
        **config.task.described(lower, confused=not config.dataset.remote),
    }


def conclude(
    config: Config,
    partition: dict[str, Any],
    evaluation: ServerEvaluation | NodeEvaluation,
    outcome: Outcome,
    picture: Draw,
) -> Ending:
    """Return what a run came to whose rounds are over; the seconds are still to be added.

    Args:
        config: The experiment.
        partition: What stands in partition.json.
        evaluation: Scores models, where the server can.
        outcome: What the round loop left.
        picture: From :func:`picture_of`, perhaps drawn by now.
    """
    initial = evaluation.initial
    weights, chosen = named(outcome.models, initial), of_choices(outcome.chosen)
    # A checkpoint of an earlier version does not have the best models.
    best = named(chosen, initial) if chosen else None
    # With validation, what a run comes to is what the chosen models do; else what the last ones do.
    models = chosen if outcome.val else outcome.models
    found = _scored(config, evaluation, outcome, models)
    drawing = {"partition": picture}
    if found.confusion:
        draw = partial(confusion_png, found.confusion, partition["classes"])
        drawing = {"confusion": ahead(draw), **drawing}
    num_clients = int(partition["num_clients"])
    unseen, judged, scores = newcomers(config), config.task.headline, found.clients
    values = [metrics[judged] for client, metrics in scores.items() if client not in unseen]
    status = DIVERGED if outcome.diverged else COMPLETED
    loss = outcome.judged("loss")
    problem = f"the loss is {loss:.3g} after round {outcome.rounds}" if outcome.diverged else ""
    summary = {
        **head(config, status),
        "seconds": 0.0,
        "rounds": outcome.rounds,
        "stopped_early": outcome.stopped_early,
        "selected_on": selected_on(config),
        "selected_by": selected_by(config),
        "final": means(outcome.headlined),
        "best": found.best,
        "fairness": fairness(values, higher_is_better=sign_of(judged) > 0),
        "clients": {str(k): own for k, own in outcome.scores.items() if k is not None},
        "byzantine": byzantine_clients(config),
        **({"unseen": unseen} if unseen else {}),
        "model_sha256": hash_weights(weights),
        **({} if best is None else {"best_sha256": hash_weights(best)}),
        "partition_sha256": partition["sha256"],
        **({"error": problem} if problem else {}),
    }
    pictures, problems = drawn(drawing)
    return Ending(
        status,
        summary,
        measurements=of_chosen(config, outcome, scores),
        further=found.further,
        reported=_reported(outcome),
        weights=weights,
        best=best,
        confusion=found.confusion,
        pictures=pictures,
        clients=client_rows(partition, scores, config.measured),
        notes=[
            *([f"{DIVERGED}: {problem}"] if problem else []),
            *_stop_notes(config, outcome),
            *selection_notes(config, summary),
            *_panel_notes(len(evaluation.listed), num_clients),
            *problems,
        ],
    )


def picture_of(config: Config, partition: dict[str, Any]) -> Draw:
    """Begin to draw how many examples each client holds, from what stands in partition.json."""
    counts, names = np.array(partition["class_counts"]), partition["classes"]
    num_clients = int(partition["num_clients"])
    return ahead(partial(partition_png, counts, names, config.task.group, num_clients))


class _Scored(NamedTuple):
    """What the final models do."""

    clients: ClientScores
    best: dict[str, Any]
    further: Sequence[Measurement] = ()
    confusion: dict[int | None, Any] | None = None


def _scored(
    config: Config,
    evaluation: ServerEvaluation | NodeEvaluation,
    outcome: Outcome,
    models: Models,
) -> _Scored:
    """Score the final models; where the nodes have the test examples, they did so in the last round."""
    if not isinstance(evaluation, ServerEvaluation):
        own = {client: outcome.own[client] for client in sorted(outcome.reported)}
        return _Scored(own, untold_best(config, outcome))
    return _Scored(
        client_scores(evaluation, models, outcome.newcomers),
        best_of(config, evaluation, outcome),
        of_further_points(config, evaluation, outcome),
        _confusion(config, evaluation, models),
    )


def _reported(outcome: Outcome) -> frozenset[int]:
    """Return the clients of which metrics.csv has that already."""
    if not outcome.val:
        return frozenset(outcome.reported)
    return frozenset[int]().union(*(choice.reported for choice in outcome.chosen.values()))


def objective(config: Config, summary: Mapping[str, Any]) -> float:
    """Return the number that ``objective`` names, from summary.json: on held-out data, if there are.

    What is not finite is NaN: a file that was read says nothing of it.
    """
    best, judged = summary["best"], config.task.headline
    if summary.get("selected_on") == VALIDATION:
        known = best["validation"]
        worst = {"worst10": best.get("validation_worst10")}
        numbers = {**known, f"best_{judged}": known[judged], **worst}
    else:
        numbers = {
            **summary["final"]["all"],
            f"best_{judged}": best[judged],
            "worst10": summary["fairness"]["worst10"],
        }
    value = numbers[config.objective]
    return math.nan if value is None else float(value)


def _confusion(
    config: Config, evaluation: ServerEvaluation, models: Models
) -> dict[int | None, Any] | None:
    if not config.task.has_confusion:
        return None
    return {owner: evaluation.confusion(weights) for owner, weights in models.items()}


def _panel_notes(listed: int, num_clients: int) -> list[str]:
    if listed == num_clients:
        return []
    return [
        f"the clients' own numbers are those of {listed:,} of {num_clients:,} clients, "
        "drawn at random (partition.panel)"
    ]


def _stop_notes(config: Config, outcome: Outcome) -> list[str]:
    if not outcome.stopped_early:
        return []
    stop = config.stop
    return [
        f"stopped after round {outcome.rounds}: {stop.metric} improved by less than "
        f"{stop.min_delta} for {stop.patience} {'tested ' if config.evaluate_every > 1 else ''}"
        f"round{'' if stop.patience == 1 else 's'}"
    ]
