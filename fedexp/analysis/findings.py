"""What a comparison comes to, in words and a few numbers; the numbers are those of its tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fedexp.analysis.comparison import Comparison
from fedexp.analysis.results import Results
from fedexp.analysis.rows import Estimate, Rows, brief, counted
from fedexp.analysis.selection import brief_moment
from fedexp.core.statistics import MIN_SEEDS

MAX_SETTINGS = 6
"""Settings of which the headline says what each gains."""


class Fact(NamedTuple):
    """A number that stands out.

    Attributes:
        label: What it is.
        value: The number, with its interval where there is one.
        detail: What it is to be read beside.
    """

    label: str
    value: str
    detail: str


@dataclass
class Headline:
    """What a report opens with.

    Attributes:
        title: The finding in one sentence.
        facts: Its numbers.
        sentences: How the numbers came about, and what limits them.
    """

    title: str
    facts: list[Fact] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)


def headline(found: Results, comparison: Comparison | None) -> Headline:
    """Say what federated learning gains over isolated clients, as far as the runs show.

    Args:
        found: What was read from disk.
        comparison: Of the same runs; None where no run completed.
    """
    if comparison is None:
        return Headline(
            f"No run completed, so there is nothing to compare: {_statuses(found)}", [], []
        )
    rows = Rows(found, comparison)
    if len(rows.by_setting) > 1:
        said = _of_settings(rows)
    elif rows.paired:
        said = _of_gain(rows)
    elif rows.federated:
        said = _without_isolated(rows)
    else:
        said = _of_references(rows)
    incomplete = len(found.runs) - len(found.completed)
    if incomplete:
        said.sentences.append(
            f"{incomplete} of {counted(len(found.runs), 'run')} did not complete "
            f"({_statuses(found)}): no number here includes them."
        )
    return said


def _of_gain(rows: Rows) -> Headline:
    """Say what the best federated row gains, where all have isolated clients of one setting."""
    row = rows.paired[0]
    runs = rows.runs(row, paired=True)
    said = Headline(_gain_title(rows, row), _gain_facts(rows, row))
    if float(rows.table.at[row, "gain_best"]) < 0 < float(rows.table.at[row, "gain"]):
        said.sentences.append(
            f"The best isolated client is better still: {rows.alone_best(row).number()}."
        )
    said.sentences += _choice(rows, rows.paired)
    better = rows.federated[0]
    if better not in rows.paired:
        said.sentences.append(
            f"{brief(better)} reaches {rows.final(better).number()}, but has no isolated "
            "clients to be compared with."
        )
    said.sentences += _mixture(rows, row)
    said.sentences.append(_certainty(rows, runs))
    missing = len(rows.runs(row)) - len(runs)
    if missing:
        said.sentences.append(
            f"{missing} more of {brief(row)} has no isolated clients to be compared with."
        )
    return said


def _gain_title(rows: Rows, row: str) -> str:
    alone, together = rows.alone(row).number(), rows.together(row).number()
    gain, judged = rows.number(row, "gain"), rows.goal.metric
    change = Estimate(rows.goal.sign * gain.mean, gain.half)
    runs = rows.runs(row, paired=True)
    few = f" on {('one seed', 'two seeds')[len(runs) - 1]}" if len(runs) < MIN_SEEDS else ""
    shown, but = change.text(signed=True), _loss_on_own(rows, row)
    if not few and abs(gain.mean) <= gain.half:
        return (
            f"No clear gain from federated learning: {shown} {judged} with {brief(row)} "
            f"({alone} isolated, {together} federated){but}"
        )
    if round(gain.mean, 3) == 0:
        return f"No gain from federated learning{few}: {alone}, isolated or with {brief(row)}{but}"
    verb = "lifts" if change.mean > 0 else "lowers"
    return (
        f"Federated learning {verb} a client's {judged} from {alone} (isolated) to {together}: "
        f"{shown} with {brief(row)}{few}{but}"
    )


def _loses_on_own(rows: Rows, row: str) -> bool:
    """Say whether most clients lose on their own examples, or all of them on average and clearly."""
    if not rows.has(row, "gain_own"):
        return False
    own = rows.number(row, "gain_own")
    most = 2 * rows.table.at[row, "worse_off"] > rows.table.at[row, "clients"]
    return bool(most or own.mean < -(0 if math.isnan(own.half) else own.half))


def _loss_on_own(rows: Rows, row: str) -> str:
    if not _loses_on_own(rows, row):
        return ""
    change = rows.number(row, "gain_own").number(signed=True)
    return f"; but on their own examples {_worse_off(rows, row)} clients lose ({change} on average)"


def _gain_facts(rows: Rows, row: str) -> list[Fact]:
    best, gain = "each on its own test examples", "by examples, each client's own"
    if rows.has(row, "gain_best"):
        best = f"best client {rows.alone_best(row).number()}"
        gain = f"over the best client {rows.number(row, 'gain_best').number(signed=True)}"
    facts = [
        Fact("Isolated, mean client", rows.alone(row).text(), best),
        Fact(f"Federated: {brief(row)}", rows.together(row).text(), _where(rows)),
        Fact(
            "Gain per client",
            rows.number(row, "gain").text(signed=True),
            gain,
        ),
    ]
    if rows.has(row, "gain_unseen"):
        alone = rows.alone(row, "alone_unseen").number()
        together = rows.together(row, "alone_unseen", "gain_unseen").text()
        facts.append(Fact("Labels never seen", f"{alone} → {together}", "isolated → federated"))
    if rows.has(row, "gain_own"):
        change = rows.number(row, "gain_own").text(signed=True)
        facts.append(
            Fact(
                "Clients worse off", _worse_off(rows, row), f"on their own examples; mean {change}"
            )
        )
    return [*facts, *_distance(rows, row)]


def _where(rows: Rows) -> str:
    return f"whole test set, {brief_moment(rows.comparison.moment)}"


def _distance(rows: Rows, row: str) -> list[Fact]:
    if not rows.has(row, "to_centralized"):
        return []
    distance = rows.number(row, "to_centralized").text(signed=True)
    return [Fact("To centralized", distance, "one model, all the data")]


def _worse_off(rows: Rows, row: str) -> str:
    """Say how many clients lose on their own examples: whole ones, in the seeds with fewest and most."""
    numbers = rows.worse_off(row)
    low, high = numbers[0], numbers[-1]
    joint = "or" if high == low + 1 else "to"
    told = f"{low}" if low == high else f"{low} {joint} {high}"
    return f"{told} of {rows.table.at[row, 'clients']:g}"


def _of_settings(rows: Rows) -> Headline:
    """Say how much the gain depends on settings: one number for all would hide what matters."""
    best = rows.by_setting
    gains = {alone: rows.number(row, "gain") for alone, row in best.items()}
    ordered = sorted(gains, key=lambda alone: gains[alone].mean)
    low, high = (
        f"{gains[alone].number(signed=True)} ({brief(_setting(rows, alone))})"
        for alone in (ordered[0], ordered[-1])
    )
    unclear = [gain for gain in gains.values() if abs(gain.mean) <= gain.half]
    always = gains[ordered[0]].mean > 0 and not unclear
    judged = rows.goal.metric
    turned = "" if rows.goal.sign > 0 else ", where + is a smaller number, the better one"
    said = Headline(
        f"Federated learning {'gains' if always else f'changes {judged} by'} {low} to {high} "
        f"{f'{judged} over' if always else 'compared with'} isolated clients{turned}"
        f"{_settings_with_loss(rows, list(best.values()))}"
    )
    shown = ordered
    if len(ordered) > MAX_SETTINGS:
        half = MAX_SETTINGS // 2
        shown = [*ordered[:half], *ordered[-half:]]
        said.sentences.append(
            f"Shown are the {half} settings that gain least and the {half} that gain most, "
            f"of {len(ordered)}."
        )
    said.facts += [_setting_fact(rows, alone, best[alone]) for alone in shown]
    if unclear:
        said.sentences.append(
            f"In {len(unclear)} of {len(gains)} settings the gain is not clear: its interval includes 0."
        )
    said.sentences.append(
        "In every setting, the best federated row is compared with its isolated clients."
    )
    said.sentences += dict.fromkeys(
        _certainty(rows, rows.runs(row, paired=True)) for row in best.values()
    )
    return said


def _settings_with_loss(rows: Rows, best: Sequence[str]) -> str:
    losing = sum(_loses_on_own(rows, row) for row in best)
    which = "every setting" if losing == len(best) else f"{losing} of {len(best)} settings"
    return f"; but on their own examples clients lose in {which}" if losing else ""


def _setting(rows: Rows, alone: str) -> str:
    """Return what a row of isolated clients has beside its strategy."""
    for strategy in rows.strategies[alone]:
        alone = alone.removeprefix(f"{strategy} ")
    return alone


def _setting_fact(rows: Rows, alone: str, row: str) -> Fact:
    name = row.removesuffix(f" {_setting(rows, alone)}")
    detail = f"isolated {rows.alone(row).number()}, {brief(name)} {rows.together(row).number()}" + (
        f"; worse off {_worse_off(rows, row)}" if rows.has(row, "gain_own") else ""
    )
    return Fact(brief(_setting(rows, alone)), rows.number(row, "gain").text(signed=True), detail)


def _without_isolated(rows: Rows) -> Headline:
    """Say what there is of federated runs that no isolated run can be compared with."""
    row = rows.federated[0]
    best = f", the best of {len(rows.federated)} rows" if len(rows.federated) > 1 else ""
    title = (
        f"{brief(row)} reaches {_named(rows)}{rows.final(row).text()} on the whole test set{best}"
    )
    why = (
        "no isolated run has their seed, partition and settings"
        if rows.isolated
        else "no isolated clients were trained; strategy=local_only trains them"
    )
    facts = [
        Fact(
            f"Federated: {brief(row)}",
            rows.final(row).text(),
            _where(rows),
        )
    ]
    if rows.has(row, "client_mean"):
        detail = f"mean client {rows.number(row, 'client_mean').number()}, each on its own examples"
        facts.append(
            Fact("Worst tenth of clients", rows.number(row, "client_worst10").number(), detail)
        )
    facts += _distance(rows, row)
    said = Headline(title, facts, [f"What federated learning gains is not known: {why}."])
    said.sentences += [
        *_choice(rows, rows.federated),
        *_mixture(rows, row),
        _certainty(rows, rows.runs(row)),
    ]
    return said


def _of_references(rows: Rows) -> Headline:
    """Say what there is where nothing was federated."""
    kind = rows.isolated or rows.centralized
    row = max(kind, key=lambda name: rows.goal.sign * rows.final(name).mean)
    which = f" with {brief(row)}, the best of {len(kind)} rows" if len(kind) > 1 else ""
    final, judged = rows.final(row).text(), _named(rows)
    nothing = "no federated run to compare it with"
    if row in rows.centralized:
        title = f"One model trained on all the data reaches {judged}{final}{which}; {nothing}"
        facts = [Fact("Centralized", final, _where(rows))]
    else:
        clients = rows.comparison.isolated
        each = rows.goal.sign * clients[clients["row"] == row][rows.goal.metric]
        then, detail = "", "each on its own test examples"
        if len(each):
            best = Estimate(rows.goal.sign * float(each.max())).number()
            then, detail = f", the best {best}", f"best client {best}"
        title = f"Isolated clients reach {judged}{final} on average{then}{which}; {nothing}"
        facts = [Fact("Isolated, mean client", final, detail)]
        facts += _distance(rows, row)
    return Headline(title, facts, [_certainty(rows, rows.runs(row))])


def _named(rows: Rows) -> str:
    """Return the metric before a number, unless it is the share that everybody takes it for."""
    return f"{rows.goal.metric} " if rows.goal.sign < 0 else ""


def _choice(rows: Rows, candidates: Sequence[str]) -> list[str]:
    """Say that the first row was chosen from several, and what the others reach."""
    row, *others = candidates
    if not others:
        return []
    listed = _listed(f"{brief(name)} {rows.final(name).number()}" for name in others)
    which = "" if len(candidates) == len(rows.federated) else " compared with isolated clients"
    return [
        f"{brief(row)} is the best of {len(candidates)} federated rows{which}, chosen by this same "
        f"test {rows.goal.metric}; the others: {listed}."
    ]


def _mixture(rows: Rows, row: str) -> list[str]:
    names = rows.strategies[row]
    return [f"{brief(row)} averages over {_listed(sorted(names))}."] if len(names) > 1 else []


def _certainty(rows: Rows, runs: Sequence[int]) -> str:
    if len(runs) < 2:
        return "One seed, so there are no intervals: another seed may say otherwise."
    if len(runs) < MIN_SEEDS:
        return f"Means over {rows.over(runs)}, which are too few for an interval."
    return f"Means over {rows.over(runs)}; ± is half the 95 % interval of the mean."


def _statuses(found: Results) -> str:
    counts = found.runs.loc[~found.runs.index.isin(found.completed), "status"].value_counts()
    return ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))


def _listed(words: Iterable[str], most: int = 6) -> str:
    words = list(words)
    rest = [f"and {len(words) - most} more"] if len(words) > most else []
    return ", ".join([*words[:most], *rest])
