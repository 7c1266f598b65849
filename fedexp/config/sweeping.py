"""Options in a multirun whose groups are chosen several ways at once.

``strategy=fedadam,fedyogi strategy.eta=0.1`` sets an option that the strategy which is chosen otherwise
does not have. So it is set in each job, and not before a strategy is chosen.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from fedexp.config.hydra_internals import quoted, split_into_jobs
from fedexp.config.schema import GROUPS
from fedexp.config.source import SLOTS
from fedexp.core.options import ConfigError

MOST = 100_000
"""Jobs that a multirun may have. Each is checked before the first begins, which takes 20 ms."""


def sweep_errors(parsed: Sequence[Override]) -> Iterator[str]:
    """Yield a line for every sweep that Hydra's own sweeper cannot make jobs of, or far too many.

    Args:
        parsed: All that makes the jobs.
    """
    counts = []
    for override in parsed:
        if not override.is_sweep_override():
            continue
        line, key = override.input_line, override.key_or_group
        if not override.is_discrete_sweep():
            yield (
                f"{line}: hydra/sweeper=optuna chooses from an interval; a multirun needs values, as in "
                f"{key}=0.1,0.2"
            )
            continue
        try:
            counts.append(len(list(islice(override.sweep_string_iterator(), MOST + 1))))
        except (ValueError, ZeroDivisionError) as error:  # range(0,3,0)
            yield f"{line}: {error}"
            continue
        if counts[-1] == 0:
            yield f"{line}: there is nothing in it, so there is nothing to run"
    if math.prod(counts) > MOST:
        yield f"these are more than {MOST:,} jobs: give several commands with a part of the values each"


def bound(parsed: Sequence[Override], params: Sequence[Override] = ()) -> list[Override]:
    """Return the options of groups of which a multirun makes several choices.

    Args:
        parsed: What stands on the command line.
        params: What an experiment sweeps by itself.
    """
    several = {o.key_or_group for o in (*params, *parsed) if o.is_sweep_override()}
    groups = set(GROUPS) if several & set(SLOTS) else several & set(GROUPS)
    return [
        o
        for o in parsed
        if o.key_or_group.partition(".")[0] in groups
        and "." in o.key_or_group
        and not (o.is_sweep_override() or o.is_add() or o.is_force_add() or o.is_delete())
    ]


def one_value(override: Override, parse: Callable[[str], Override]) -> Override:
    """Return an option as a sweep of one value: Hydra sets such a one in each job alone."""
    key, value = override.key_or_group, override.value()
    texts = [override.get_value_element_as_str()]
    texts += [quoted(value)] if isinstance(value, str) else []
    for text in texts:
        try:
            swept = parse(f"{key}=choice({text})")
            jobs = split_into_jobs([swept])
            if len(jobs) == 1 and parse(jobs[0][0]).value() == value:
                return swept
        except ConfigError:  # what it holds cannot stand between parentheses as it is
            continue
    return override


def lacking(
    options: Sequence[Override],
    parsed: Sequence[Override],
    composed: Callable[[list[str]], DictConfig],
) -> dict[str, str]:
    """Say of which options only some of the choices know.

    Args:
        options: Those of :func:`bound`.
        parsed: All that makes the jobs.
        composed: Composes overrides.

    Returns:
        Option -> the line that refuses it.
    """
    found: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    choices = [o for o in parsed if o.key_or_group in (*GROUPS, *SLOTS) and not o.is_add()]
    several = {o.key_or_group for o in choices if o.is_sweep_override()}
    for lines in split_into_jobs(choices) if options else []:
        try:
            node = composed(lines)
        except ConfigError:
            continue  # which is told when the job is looked at
        for override in options:
            group, option = override.key_or_group.split(".")[:2]
            whose = {group} if group in several else several
            name = " ".join(line for line in lines if line.partition("=")[0] in whose)
            page = OmegaConf.select(node, group)
            knows, lacks = found[override.key_or_group]
            names = knows if page is not None and option in page else lacks
            if name not in names:
                names.append(name)
    return {
        key: f"{key}: {' and '.join(lacks)} {'has' if len(lacks) == 1 else 'have'} no such option, "
        f"unlike {' and '.join(knows)}: leave it out, or give them commands of their own"
        for key, (knows, lacks) in found.items()
        if lacks and knows
    }
