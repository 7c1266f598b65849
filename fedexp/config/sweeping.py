"""Options in a multirun whose groups are chosen several ways at once.

``strategy=fedadam,fedyogi strategy.eta=0.1`` sets an option that the strategy which is chosen otherwise
does not have. So it is set in each job, and not before a strategy is chosen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from fedexp.config.hydra_internals import quoted, split_into_jobs
from fedexp.config.schema import GROUPS
from fedexp.config.source import SLOTS
from fedexp.core.options import ConfigError


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
