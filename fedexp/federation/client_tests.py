"""What clients measured on their own test examples, as rows of metrics.csv and as one mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedexp.core.options import FedexpError
from fedexp.core.roles import weighted_mean
from fedexp.federation.evaluation import Models
from fedexp.federation.guards import Tested
from fedexp.federation.outcome import Outcome
from fedexp.federation.scoring import Row
from fedexp.federation.shares import CLIENT_TEST


def rows_of(tested: Sequence[Tested], models: Models) -> Iterator[Row]:
    """Return what each client measured, and the means by examples.

    Args:
        tested: Of clients that have test examples.
        models: The models that were tested, by owner.
    """
    for found in tested:
        model = "local" if found.client in models else "global"
        for name, value in found.numbers.items():
            yield Row(model, CLIENT_TEST, found.client, name, value)
    for name, value in means(tested).items():
        yield Row(_whose(models), CLIENT_TEST, None, name, value)


def means(tested: Sequence[Tested]) -> dict[str, float]:
    """Return the means over clients, by examples; none where nobody was tested."""
    counts = [found.num_examples for found in tested]
    names = tested[0].numbers if tested else ()
    return {
        name: weighted_mean([found.numbers[name] for found in tested], counts) for name in names
    }


def in_place_of_a_test_set(
    server_round: int, tested: Sequence[Tested], models: Models, outcome: Outcome
) -> list[Row]:
    """Note clients' means as what the models do on the whole test set, and return that as rows.

    Raises:
        FedexpError: If no client that has test examples has answered.
    """
    found = means(tested)
    if not found:
        raise FedexpError(
            f"round {server_round}: no client that has test rows tested the model, and nobody else has "
            "any: see failures.csv"
        )
    outcome.models = dict(models)
    outcome.scores = {None: {"all": found}}
    return [Row(_whose(models), "test", None, name, value) for name, value in found.items()]


def _whose(models: Models) -> str:
    return "global" if None in models else "local"
