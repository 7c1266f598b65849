"""One experiment, from a checked configuration to a complete run folder."""

from __future__ import annotations

import gc
import json
import logging
from pathlib import Path
from typing import Any

from fedexp import backend, plots
from fedexp.behaviour import byzantine_clients
from fedexp.config import Config
from fedexp.data import FederatedData, federate
from fedexp.evaluation import ServerEvaluation
from fedexp.grid import CohortGrid
from fedexp.models import Weights, buffer_names, hash_weights, initial_weights
from fedexp.preview import describe_partition
from fedexp.progress import Display
from fedexp.records import RunFolder
from fedexp.rounds import Outcome, RoundLoop
from fedexp.strategies import build_strategy

log = logging.getLogger("fedexp")


def run_experiment(config: Config, run_dir: Path, *, verbose: bool = False) -> dict[str, Any]:
    """Run one experiment and write its folder.

    Args:
        config: What to run; must have passed :func:`fedexp.validation.validate`.
        run_dir: The run's folder; made if absent.
        verbose: Let Flower speak.

    Returns:
        What stands in summary.json.

    Raises:
        FedexpError: If the run cannot go on. The folder then says ``failed`` and why.
    """
    _quieten_flower(verbose)
    folder = RunFolder(run_dir, config)
    try:
        data = federate(config)
        folder.write_json("partition.json", describe_partition(config, data))
        evaluation = ServerEvaluation(config, data)
        with Display(config, run_dir) as display:
            loop = RoundLoop(
                config,
                build_strategy(config, buffer_names(config.model, data.spec)),
                evaluation,
                folder,
                initial_weights(config.model, data.spec, config.seed),
                display.progress,
            )
            backend.run_server(config, data, _timed_start(loop, folder), verbose=verbose)
            summary = _conclude(config, data, evaluation, folder, loop.outcome)
            display.conclude(loop.outcome)
    except KeyboardInterrupt:
        folder.finish("interrupted")
        raise
    except Exception as error:
        folder.finish("failed", error=f"{type(error).__name__}: {error}")
        raise
    return summary


def _quieten_flower(verbose: bool) -> None:
    flower = logging.getLogger("flwr")
    flower.setLevel(logging.INFO if verbose else logging.ERROR)
    if not verbose:  # what it says still reaches run.log, through the root logger
        flower.handlers.clear()
    flower.propagate = not verbose


def _timed_start(loop: RoundLoop, folder: RunFolder) -> Any:
    def server(grid: CohortGrid) -> None:
        gc.collect()
        gc.freeze()  # else every few rounds a collection scans all that torch's import left: 0.2 s
        folder.add_timing(0, "startup", folder.seconds())
        loop.run(grid)

    return server


def _conclude(
    config: Config,
    data: FederatedData,
    evaluation: ServerEvaluation,
    folder: RunFolder,
    outcome: Outcome,
) -> dict[str, Any]:
    weights = _final_weights(outcome)
    folder.write_model(weights)
    if not outcome.local_weights:
        _write_confusion(folder, evaluation.confusion(outcome.weights), data.spec.classes)
    counts = data.partition.class_counts(data.train.labels, data.spec.num_classes)
    folder.write_bytes("partition.png", plots.partition_png(counts, data.spec.classes))
    folder.finish(
        "completed",
        rounds=outcome.rounds,
        stopped_early=outcome.stopped_early,
        final=_final(outcome),
        best={"round": outcome.best_round, "accuracy": outcome.best_accuracy},
        clients={
            str(client): scores for client, scores in outcome.scores.items() if client is not None
        },
        byzantine=byzantine_clients(config),
        model_sha256=hash_weights(weights),
        partition_sha256=data.partition.sha256,
    )
    summary: dict[str, Any] = json.loads((folder.path / "summary.json").read_text())
    return summary


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


def _write_confusion(folder: RunFolder, counts: Any, classes: tuple[str, ...]) -> None:
    header = ",".join(["true_label", *map(str, range(len(counts)))])
    rows = [",".join(map(str, [label, *row])) for label, row in enumerate(counts.tolist())]
    folder.write_text("confusion.csv", "\n".join([header, *rows]) + "\n")
    folder.write_bytes("confusion.png", plots.confusion_png(counts, classes))
