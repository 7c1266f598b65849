"""What models do on the clients' own shares of the test examples, once a run is over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fedexp.config.schema import Config
from fedexp.core.weights import Weights
from fedexp.federation.cohort import unseen_clients
from fedexp.federation.evaluation import CLIENT_VAL, ClientScores, Models, ServerEvaluation
from fedexp.federation.events import Measurement
from fedexp.federation.outcome import Outcome
from fedexp.federation.personal import kept_entries
from fedexp.strategies import ISOLATED

CLIENT_TEST, NEWCOMER_TEST = "client_test", "newcomer_test"
"""A client's own share of the test examples; of a client that took part in no round of training, too."""

GLOBAL, LOCAL, TUNED = "global", "local", "tuned"
"""Whose numbers these are: the global model's; the client's own model's; that of the model with which the
client is tested, after ``clients.tuned_steps`` more steps on its examples."""


def client_scores(
    evaluation: ServerEvaluation,
    models: Models,
    unseen: Mapping[int, Weights],
) -> ClientScores:
    """Return the metrics of every listed client's model on its own share of the test examples.

    Args:
        evaluation: Scores models.
        models: None -> the model of all clients that have none of their own, partition id -> a client's.
        unseen: Partition id -> a client's own model, of those that took part in no round.
    """
    scores: ClientScores = {}
    everybody: dict[int | None, Weights] = {**models}
    everybody |= dict(unseen.items())
    shared = [k for k in evaluation.listed if k not in everybody]
    for owner, weights in everybody.items():
        scores |= evaluation.client_scores(weights, shared if owner is None else [owner])
    return dict(sorted(scores.items()))


def newcomers(config: Config) -> list[int]:
    """Return the clients whose numbers are those of newcomers; none where each trains alone."""
    return [] if config.strategy.kind == ISOLATED else unseen_clients(config)


def of_chosen(config: Config, outcome: Outcome, scores: ClientScores) -> list[Measurement]:
    """Return what clients have of the models that were chosen, of the round whose models these are."""
    model, unseen = GLOBAL if None in outcome.models else LOCAL, set(newcomers(config))
    measurements = []
    for client, metrics in scores.items():
        number = outcome.rounds
        if outcome.val:
            owner = client if model == LOCAL else None
            # A newcomer has one model, which is made of the last global one.
            number = outcome.chosen[owner].round if owner in outcome.chosen else number
        split = NEWCOMER_TEST if client in unseen else CLIENT_TEST
        measurements += [
            Measurement(number, model, split, "all", client, name, value)
            for name, value in metrics.items()
        ]
    return measurements


def of_further_points(
    config: Config, evaluation: ServerEvaluation, outcome: Outcome
) -> list[Measurement]:
    """Return what clients have of two more models, after the last round.

    One is the global model of a personalised strategy, unless some of its layers are only on clients; the
    other what ``clients.tuned_steps`` make of the model that a client is tested with.
    """
    rows: list[Measurement] = []
    everybody, unseen = evaluation.listed, set(newcomers(config))
    if config.strategy.personalised and not kept_entries(config, evaluation):
        shared = dict.fromkeys(everybody, outcome.weights)
        rows += _rows(GLOBAL, shared, evaluation, outcome.rounds, unseen)
    return [*rows, *_rows(TUNED, outcome.tuned, evaluation, outcome.rounds, unseen)]


def _rows(
    model: str,
    models: Mapping[int, Weights],
    evaluation: ServerEvaluation,
    server_round: int,
    unseen: set[int],
) -> Iterator[Measurement]:
    for client, weights in models.items():
        own = NEWCOMER_TEST if client in unseen else CLIENT_TEST
        for split, found in (
            (own, evaluation.client_scores(weights, [client])),
            (CLIENT_VAL, evaluation.client_validation(weights, [client])),
        ):
            for name, value in found.get(client, {}).items():
                yield Measurement(server_round, model, split, "all", client, name, value)
