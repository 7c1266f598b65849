"""What every heading of a table means, in a sentence; ``fedexp help tables`` does without pandas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fedexp.analysis.selection import LAST
from fedexp.core.statistics import LEVEL, MIN_RANKED, MIN_SEEDS

if TYPE_CHECKING:
    from fedexp.analysis.comparison import Comparison
    from fedexp.analysis.goals import Goal

_FINAL = "the final model"
_STRATEGY = "how models are combined; indented rows are single isolated clients"
_ROUNDS = (
    "on the whole test set, median over the runs that get there, whose number stands behind it where it "
    "is not all"
)
_SENTENCES = {
    "runs": "how many runs (seeds) the numbers of a row are over; a run that diverged is in none",
    "seconds": "from a run's start to its end, mean over runs; depends on the machine",
    "over best": "the gain over the best of the isolated clients",
    "own examples": "the gain on the client's own test examples (of its mix of labels, or those that the "
    "data call its own)",
    "unseen labels": "the gain on test examples of labels that the client holds no training example of",
    "worse off": "clients that lose on their own examples, of those that have any; mean over runs",
    "client": "the number of the client in its partition",
    "owner": "what the data call the client; they stand in the order of the clients' numbers",
    "tested on": "the number of test examples that the owner has",
    "seeds": "pairs of runs of one seed and partition that a test is over",
    "p": f"two-sided paired t-test, which assumes that differences are normally distributed; "
    f"Holm-adjusted over all rows; at least {MIN_SEEDS} seeds",
    "p isolated": "as p, of the differences from isolated clients on the clients' own test examples",
    "p finetune": "as p, of the differences from strategy=finetune there",
    "beats isolated": "yes: above isolated clients on the clients' own test examples, and a test "
    f"shows it (p < {LEVEL:g}); not shown: above them by what may be chance; untested: above them in "
    f"fewer than {MIN_SEEDS} seeds; no: not above them",
    "Wilcoxon p": "two-sided signed-rank test, which does not assume that; Holm-adjusted; at least "
    f"{MIN_RANKED} seeds",
    "effect g": "the difference in standard deviations of the differences (Hedges' g), with its 95 % "
    "interval",
    "detectable": "the difference that as many seeds with this spread would show in four of five "
    f"experiments at the level {LEVEL:g}; smaller ones can be real and not be found",
}

_JUDGED = {
    "gain": "{judged} on the whole test set minus that of the isolated client (trained without "
    "the others) of the same seed and partition, mean over clients{turned}",
    "own mean": "mean over clients of the {judged} on their own test examples",
    "own std": "standard deviation over clients of the {judged} on their own test examples",
    "own worst 10 %": "mean of that {judged} over the worst tenth of the clients",
    "to centralized": "{judged} minus that of one model trained on all the data, same seed{turned}",
    "whole test set": "the client's gain in {judged} on all test examples",
    "difference": "{judged} minus that of the baseline, mean over the seeds that both have{turned}",
    "own": "mean over clients of the {judged} on their own test examples, each of the model that it is "
    "tested with: its own where it has one, else the global one; newcomers left out",
    "own, global model": "the same of the strategy's global model, where clients have models of "
    "their own",
    "own, tuned": "the same after clients.tuned_steps more steps on the client's own examples",
    "over isolated": "own {judged} minus that of isolated clients of the same seed, partition and "
    "settings, mean over clients{turned}",
    "over finetune": "own {judged} minus that of strategy=finetune (FedAvg, then some steps on every "
    "client) of the same seed, partition and settings, mean over clients{turned}",
    "newcomers": "mean {judged} on their own test examples of clients that took part in no round "
    "(clients.unseen)",
    "newcomers over isolated": "that {judged} minus what the same clients reach when each trains "
    "alone{turned}",
    "average rank": "mean over settings of the rank by {judged}, 1 for the best",
}
"""Those that name the metric by which runs are judged."""

_TURNED = "; turned, because a smaller number is the better one: what is above 0 is better"

_METRICS = {
    "classification": {
        "accuracy": "share of the whole test set that the final model names right, 0 to 1",
        "loss": "mean cross-entropy on the whole test set, in nats",
    },
    "next_token": {
        "accuracy": "share of the tokens of the whole test set that the final model foretells, 0 to 1",
        "loss": "mean cross-entropy a token of the whole test set, in nats",
        "perplexity": "the exponential of the mean cross-entropy a token; as if the model chose among so "
        "many tokens",
    },
    "regression": {
        "rmse": "root of the mean squared error on the whole test set, in the unit of what is predicted",
        "loss": "mean squared error on the whole test set",
        "mae": "mean absolute error on the whole test set, in the unit of what is predicted",
        "r2": "share of the variance of what is predicted that the model explains, 1 at best",
    },
}


_FACTS = {
    "Isolated, mean client": "{judged} on the whole test set of the models that clients trained alone, "
    "mean over clients and seeds",
    "Federated": "{judged} on the whole test set of the federated model named here, mean over seeds",
    "Centralized": "{judged} on the whole test set of one model trained on all data, mean over seeds",
    "Gain per client": "what a client gains: {judged} of the federated model minus that of the model it "
    "trained alone, both on the whole test set, mean over clients and seeds{turned}",
    "Labels never seen": "{judged} on the test examples of labels that a client holds no training "
    "example of, mean over clients and seeds",
    "Clients worse off": "clients for which the model that they trained alone is better than the "
    "federated one, on their own test examples; of the seeds with fewest and most",
    "Worst tenth of clients": "mean of the {judged} that the worst tenth of the clients have on their "
    "own test examples, at least one client",
    "To centralized": _JUDGED["to centralized"],
}
_OF_SETTING = (
    "in this setting, the {judged} of the best federated row minus that of isolated clients, on the "
    "whole test set, mean over clients and seeds{turned}"
)


def fact(label: str, goal: Goal, *, apart: bool = False) -> str:
    """Return what a number beside a report's headline means; other labels are settings.

    Args:
        label: What stands beside the number.
        goal: What runs are judged by.
        apart: Whether clients were tested on their own examples alone.
    """
    text = _FACTS.get(label.partition(":")[0], _OF_SETTING)
    if apart:
        text = text.replace("the whole test set", "the clients' own test examples, by examples")
    return text.format(judged=goal.metric, turned=_TURNED if goal.sign < 0 else "")


def everything() -> dict[str, str]:
    """Return all headings with their sentences, those that depend on the runs among them."""
    return {
        "strategy": _STRATEGY,
        "partition, clients.num, ...": "the option of the runs that is called so",
        **_METRICS["classification"],
        **{name: text.format(judged="accuracy", turned="") for name, text in _JUDGED.items()},
        **_SENTENCES,
        "rounds to 0.86": f"first round with at least that accuracy {_ROUNDS}; without --target, it is "
        "95 % of the best federated row's accuracy, rounded down",
        "1-3-7": "accuracy on the test examples of labels 1, 3 and 7",
        "macro_f1, ece, ...": "the metric of that name on the whole test set (fedexp help metrics)",
        "own macro_f1, ...": "mean over clients of that metric on their own test examples",
        "its macro_f1, ...": "that metric on the owner's own test examples",
    }


def sentence(heading: str, found: Comparison) -> str:
    """Return what a heading means; every heading of :func:`fedexp.analysis.tables.tables` has one."""
    from fedexp.analysis.factors import STRATEGY, title  # and pandas with it

    goal = found.goal
    if heading == "own examples" and not goal.has_labels:
        return "the gain on the client's own share of the test examples"
    if heading in _SENTENCES:
        return _SENTENCES[heading]
    if heading in _JUDGED:
        turned = _TURNED if goal.sign < 0 else ""
        return _JUDGED[heading].format(judged=goal.metric, turned=turned)
    if heading in _METRICS.get(goal.task, {}):
        told = _METRICS[goal.task][heading]
        return told if found.moment == LAST else told.replace(_FINAL, f"the model {found.moment}")
    names = {title(key): key for key in found.factors}
    if heading == STRATEGY:
        return _STRATEGY
    if heading in names:
        return f"the option {names[heading]} of the runs"
    if heading.startswith("rounds to "):
        return f"first round with {goal.at_least} {goal.metric} {found.target:g} {_ROUNDS}"
    if heading in found.subsets:
        return f"{goal.metric} on the test examples of labels {heading.replace('-', ', ')}"
    if heading in found.metrics:
        return f"the metric {heading} on the whole test set"
    if heading.removeprefix("own ") in found.metrics:
        return f"mean over clients of {heading.removeprefix('own ')} on their own test examples"
    if heading.startswith("its "):
        return f"{heading.removeprefix('its ')} on the owner's own test examples, mean over runs"
    raise KeyError(f"no sentence for the heading {heading!r}")


def lines(headings: Iterable[str], found: Comparison) -> list[str]:
    """Return a line for every heading, in the tables' order, each once."""
    return [f"{name}: {sentence(name, found)}." for name in dict.fromkeys(headings)]
