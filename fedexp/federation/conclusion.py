"""What is said of the final models: their weights, confusion matrices, what they do for each client.

The clients' shares of the test examples are scored here for every client, in this process, also where
``clients.fraction_evaluate`` lets none or few of them evaluate: a simulation can tell, and who is
served badly is half of what it is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fedexp.config.schema import Config
from fedexp.core.pictures import confusion_png, drawn, partition_png
from fedexp.core.statistics import fairness
from fedexp.core.weights import Weights, hash_weights
from fedexp.data.federated import FederatedData
from fedexp.federation.dealing import client_rows
from fedexp.federation.evaluation import ClientScores, ServerEvaluation
from fedexp.federation.events import COMPLETED, DIVERGED, Ending, Measurement
from fedexp.federation.faults import byzantine_clients
from fedexp.federation.outcome import Outcome


def head(config: Config, status: str) -> dict[str, Any]:
    """Return how summary.json begins, while a run goes on and once it is over."""
    strategy = config.strategy
    return {
        "status": status,
        "strategy": strategy.name,
        "kind": strategy.kind,
        "seed": config.seed,
    }


def conclude(
    config: Config,
    data: FederatedData,
    partition: dict[str, Any],
    evaluation: ServerEvaluation,
    outcome: Outcome,
) -> Ending:
    """Return what a run came to whose rounds are over; the seconds are still to be added.

    Args:
        config: The experiment.
        data: Who holds what.
        partition: What stands in partition.json.
        evaluation: Scores models.
        outcome: What the round loop left.
    """
    weights = _final_weights(outcome, evaluation.initial)
    confusion = {owner: evaluation.confusion(own) for owner, own in outcome.models.items()}
    counts = data.partition.class_counts(data.train.targets, data.spec.num_classes)
    scores = _client_scores(data, evaluation, outcome.models)
    model = "global" if None in outcome.models else "local"
    accuracies = [metrics["accuracy"] for metrics in scores.values()]
    status = DIVERGED if outcome.diverged else COMPLETED
    loss = outcome.headline("loss")
    problem = f"the loss is {loss:.3g} after round {outcome.rounds}" if outcome.diverged else ""
    summary = {
        **head(config, status),
        "seconds": 0.0,
        "rounds": outcome.rounds,
        "stopped_early": outcome.stopped_early,
        "final": _final(outcome),
        "best": {"round": outcome.best_round, "accuracy": outcome.best_accuracy},
        "fairness": fairness(accuracies),
        "clients": {str(k): own for k, own in outcome.scores.items() if k is not None},
        "byzantine": byzantine_clients(config),
        "model_sha256": hash_weights(weights),
        "partition_sha256": data.partition.sha256,
        **({"error": problem} if problem else {}),
    }
    pictures, problems = drawn(
        {
            "confusion": partial(confusion_png, confusion, data.spec.classes),
            "partition": partial(partition_png, counts, data.spec.classes),
        }
    )
    return Ending(
        status,
        summary,
        measurements=[
            Measurement(outcome.rounds, model, "client_test", "all", client, name, value)
            for client, metrics in scores.items()
            for name, value in metrics.items()
        ],
        reported=frozenset(outcome.reported),
        weights=weights,
        confusion=confusion,
        pictures=pictures,
        clients=client_rows(partition, scores, config.measured),
        notes=[
            *([f"{DIVERGED}: {problem}"] if problem else []),
            *_stop_notes(config, outcome),
            *problems,
        ],
    )


def objective(config: Config, summary: Mapping[str, Any]) -> float:
    """Return the number that ``objective`` names, from summary.json."""
    numbers = {
        **summary["final"]["all"],
        "best_accuracy": summary["best"]["accuracy"],
        "worst10": summary["fairness"]["worst10"],
    }
    return float(numbers[config.objective])


def _client_scores(
    data: FederatedData, evaluation: ServerEvaluation, models: Mapping[int | None, Weights]
) -> ClientScores:
    scores: ClientScores = {}
    for owner, weights in models.items():
        clients = range(data.partition.num_clients) if owner is None else [owner]
        scores |= evaluation.client_scores(weights, clients)
    return scores


def _final_weights(outcome: Outcome, initial: Weights) -> Weights:
    """Return the global model's weights, or those of all trained clients under ``<client>/<name>``."""
    if None in outcome.models:
        return outcome.models[None]
    return {
        f"{client}/{name}": array
        for client, weights in outcome.models.items()
        if weights is not initial
        for name, array in weights.items()
    }


def _final(outcome: Outcome) -> dict[str, dict[str, float]]:
    """Return subset -> metric -> value of the global model, or the mean over local models."""
    models = outcome.headlined
    return {
        subset: {
            metric: sum(scores[subset][metric] for scores in models) / len(models)
            for metric in models[0][subset]
        }
        for subset in models[0]
    }


def _stop_notes(config: Config, outcome: Outcome) -> list[str]:
    if not outcome.stopped_early:
        return []
    stop = config.stop
    return [
        f"stopped after round {outcome.rounds}: {stop.metric} improved by less than "
        f"{stop.min_delta} for {stop.patience} round{'' if stop.patience == 1 else 's'}"
    ]
