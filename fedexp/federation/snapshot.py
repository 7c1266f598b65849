"""What a run needs to go on in another process, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedexp.core.roles import Server
from fedexp.core.weights import Weights, copied
from fedexp.federation.outcome import Choice, Outcome, Patience
from fedexp.flower.grid import CohortGrid


class Keeper:
    """Keeps snapshots; this one keeps none."""

    def is_due(self, server_round: int) -> bool:
        """Say whether the state after a round is to be kept."""
        return False

    def save(self, server_round: int, state: Callable[[], dict[str, Any]]) -> None:
        """Keep the state after a round, gathered by a function: that may take its time."""


Models = Callable[[Outcome], dict[int | None, Weights]]
"""From what there is of a run to the models that a test would be about, by owner."""


def take(
    outcome: Outcome,
    server: Server,
    grid: CohortGrid,
    stop: Patience,
    models: Models,
    *,
    tested: bool = True,
) -> dict[str, Any]:
    """Return the state after a round: arrays, numbers, words, and collections of them.

    After a round that was tested, all models were, also where a strategy makes them anew when asked.
    """
    now, before = models(outcome), outcome.models
    untested = [k for k, model in now.items() if not tested and model is not before.get(k)]
    return {
        "round": outcome.rounds,
        "weights": outcome.weights,
        "server": server.state(),
        "clients": grid.client_states(),
        "scores": [[owner, scores] for owner, scores in outcome.scores.items()],
        "own": outcome.own,
        "reported": outcome.reported,
        **({"personal": _personal(outcome)} if outcome.personal else {}),
        **({"trained": outcome.trained} if outcome.trained else {}),
        **({"untested": untested} if untested else {}),
        "val": [[owner, numbers] for owner, numbers in outcome.val.items()],
        "best": [outcome.best_round, outcome.best_value],
        "chosen": [
            [
                owner,
                choice.round,
                choice.merit,
                sorted(choice.reported),
                _kept(choice, owner, outcome, now),
            ]
            for owner, choice in outcome.chosen.items()
        ],
        "patience": [stop.best, stop.idle],
    }


def _personal(outcome: Outcome) -> list[list[Any]]:
    return [[client, weights] for client, weights in outcome.personal.items()]


_INITIAL, _NOW = "initial", "now"
"""Stand for a best model that is the initial one, or the one of this round: it is not kept twice."""


def _kept(
    choice: Choice, owner: int | None, outcome: Outcome, now: Mapping[int | None, Weights]
) -> Weights | str:
    if choice.weights is outcome.initial:
        return _INITIAL
    same = choice.weights is now.get(owner)
    # The global model's is a copy.
    return _NOW if same or (owner is None and choice.round == outcome.rounds) else choice.weights


def restore(
    state: Mapping[str, Any],
    outcome: Outcome,
    server: Server,
    grid: CohortGrid,
    stop: Patience,
    models: Models,
) -> None:
    """Bring a run that has not begun to where :func:`take` found another one."""
    outcome.weights = _same_object_if_equal(state["weights"], outcome.weights)
    server.restore(state["server"])
    grid.restore_states(state["clients"])
    outcome.rounds = state["round"]
    outcome.personal = dict(state.get("personal", []))
    outcome.trained = set(state.get("trained", []))
    now, untested = models(outcome), set(state.get("untested", []))
    outcome.models = {owner: model for owner, model in now.items() if owner not in untested}
    outcome.scores = dict(state["scores"])
    outcome.own, outcome.reported = state["own"], set(state["reported"])
    outcome.val = dict(state.get("val", []))
    outcome.best_round, outcome.best_value = state["best"]
    for owner, number, merit, reported, kept in state.get("chosen", []):
        if isinstance(kept, str):
            kept = outcome.initial if kept == _INITIAL else now[owner]
        weights = kept
        if owner is None:  # a strategy may write into what it returned
            weights = copied(weights)
        outcome.chosen[owner] = Choice(number, weights, merit, frozenset(reported))
    stop.best, stop.idle = state["patience"]


def _same_object_if_equal(weights: Weights, initial: Weights) -> Weights:
    """Return the initial weights themselves where they are what was kept: no client was federated."""
    same = all(np.array_equal(array, initial[name]) for name, array in weights.items())
    return initial if same else weights
