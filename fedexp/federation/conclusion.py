"""What is said of the final models: their weights, confusion matrices, what they do for each client.

The clients' shares of the test images are scored here for every client, in this process, also where
``clients.fraction_evaluate`` lets none or few of them evaluate: a simulation can tell, and who is
served badly is half of what it is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedexp.config.schema import Config
from fedexp.core.pictures import confusion_png, partition_png
from fedexp.core.statistics import fairness
from fedexp.data.federated import FederatedData
from fedexp.federation.behaviour import byzantine_clients
from fedexp.federation.evaluation import ClientScores, ServerEvaluation
from fedexp.federation.rounds import Outcome
from fedexp.models.networks import Weights, hash_weights
from fedexp.tracking.run_folder import Metric, RunFolder


def conclude(
    config: Config,
    data: FederatedData,
    evaluation: ServerEvaluation,
    folder: RunFolder,
    outcome: Outcome,
) -> dict[str, Any]:
    """Write what the run came to, and return summary.json."""
    weights = _final_weights(outcome)
    folder.write_model(weights)
    # An isolated client that was never trained still has its initial model.
    own: Mapping[Any, Weights] = outcome.local_weights
    models = {client: own.get(client, outcome.weights) for client in outcome.scores}
    _write_confusion(folder, {k: evaluation.confusion(w) for k, w in models.items()}, data)
    counts = data.partition.class_counts(data.train.labels, data.spec.num_classes)
    folder.write_bytes("partition.png", partition_png(counts, data.spec.classes))
    scores = _client_scores(data, evaluation, models)
    model = "global" if None in models else "local"
    rows = [
        Metric(outcome.rounds, model, "client_test", "all", client, name, value)
        for client, metrics in scores.items()
        for name, value in metrics.items()
    ]
    folder.report(outcome.rounds, rows, already=outcome.reported)
    return folder.finish(
        "completed",
        stopped_early=outcome.stopped_early,
        final=_final(outcome),
        best={"round": outcome.best_round, "accuracy": outcome.best_accuracy},
        fairness=fairness([metrics["accuracy"] for metrics in scores.values()]),
        clients={
            str(client): scores for client, scores in outcome.scores.items() if client is not None
        },
        byzantine=byzantine_clients(config),
        model_sha256=hash_weights(weights),
        partition_sha256=data.partition.sha256,
    )


def objective(config: Config, summary: Mapping[str, Any]) -> float:
    """Return the figure that ``objective`` names, from summary.json."""
    figures = {
        "accuracy": summary["final"]["all"]["accuracy"],
        "loss": summary["final"]["all"]["loss"],
        "best_accuracy": summary["best"]["accuracy"],
        "worst10": summary["fairness"]["worst10"],
    }
    return float(figures[config.objective])


def _client_scores(
    data: FederatedData, evaluation: ServerEvaluation, models: Mapping[int | None, Weights]
) -> ClientScores:
    scores: ClientScores = {}
    for owner, weights in models.items():
        clients = range(data.partition.num_clients) if owner is None else [owner]
        scores |= evaluation.client_scores(weights, clients)
    return scores


def _final_weights(outcome: Outcome) -> Weights:
    """Return the global model's weights, or all local models' under ``<client>/<name>``."""
    if not outcome.local_weights:
        return outcome.weights
    return {
        f"{client}/{name}": array
        for client, weights in sorted(outcome.local_weights.items())
        for name, array in weights.items()
    }


def _final(outcome: Outcome) -> dict[str, dict[str, float]]:
    """Return subset -> metric -> value of the global model, or the mean over local models."""
    models = list(outcome.scores.values())
    return {
        subset: {
            metric: sum(scores[subset][metric] for scores in models) / len(models)
            for metric in models[0][subset]
        }
        for subset in models[0]
    }


def _write_confusion(
    folder: RunFolder, matrices: Mapping[int | None, Any], data: FederatedData
) -> None:
    """Write confusion.csv, a block of rows per model, and confusion.png."""
    lines = [",".join(["client", "true_label", *map(str, range(data.spec.num_classes))])]
    for client, counts in matrices.items():
        name = "" if client is None else client
        lines += [",".join(map(str, [name, k, *row])) for k, row in enumerate(counts.tolist())]
    folder.write_text("confusion.csv", "\n".join(lines) + "\n")
    folder.write_bytes("confusion.png", confusion_png(matrices, data.spec.classes))
