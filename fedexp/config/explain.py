"""Hydra's errors in one line that names the option and the remedy."""

from __future__ import annotations

import dataclasses
import difflib
import re

from hydra.errors import ConfigCompositionException

from fedexp.config.clients import ClientsConfig
from fedexp.config.schema import GROUPS, Config

EXTRAS = {
    "hydra/sweeper/optuna": "optuna",
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/submitit_slurm": "slurm",
}
"""What Hydra cannot find unless the extra of that name is installed."""

_NUMBERS = {"Integer": "a whole number", "Float": "a number"}


def explain(line: str, error: Exception) -> str:
    """Return what is wrong with an override, given what Hydra raised on composing it."""
    key, _, value = line.lstrip("+~").partition("=")
    told = str(error.__cause__ or "")
    for choice, extra in EXTRAS.items():
        if f"'{choice}'" in str(error):
            return f"{line}: {choice} is not installed: pip install 'fedexp[{extra}]'"
    if isinstance(error, AttributeError | AssertionError | TypeError):
        return (
            f"{line}: Hydra cannot set this on the command line; set it in a file of --config-dir"
        )
    available = re.search(r"Available options in '(.+)':\n((?:\t.+\n?)+)", str(error))
    if available:
        names = available.group(2).split()
        return f"{line}: {available.group(1)} must be one of {', '.join(names)}"
    missing = re.search(r"Key '(.+)' (?:is )?not in '(.+)'", told)
    if missing:
        return unknown_option(key, _options_of(missing.group(2)))
    if wrong := re.search(r"could not be converted to (Integer|Float)", told):
        return f"{key} must be {_NUMBERS[wrong[1]]}, got {value!r}"
    if "is not a ListConfig, list or tuple" in told:
        return f"{key} must be a list, as in '{key}=[{value}]', got {value!r}"
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        return f"{line}: {told.splitlines()[0]}"
    return f"{line}: {cause(error)}"


def _options_of(type_name: str) -> set[str]:
    pages = (page for registry in GROUPS.values() for page in registry.pages().values())
    for entry in [Config, ClientsConfig, *pages]:
        if entry.__name__ == type_name:
            return {item.name for item in dataclasses.fields(entry)}
        for item in dataclasses.fields(entry):
            if type_name == str(item.type):
                nested = getattr(entry(), item.name)
                return {child.name for child in dataclasses.fields(nested)}
    return set()


def unknown_option(path: str, known: set[str]) -> str:
    """Say that an option does not exist, and which one may have been meant."""
    group, _, option = path.rpartition(".")
    if group and known == {"name"}:
        return f"{path}: no such option; this {group} has none"
    close = difflib.get_close_matches(option, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"it must be one of {', '.join(sorted(known))}"
    return f"{path}: no such option; {hint}" if known else f"{path}: no such option"


def cause(error: Exception) -> str:
    """Return what is wrong with a file, in a line that names the option, from what Hydra raised."""
    told = str(error).strip() or str(error.__cause__ or "").strip() or type(error).__name__
    option = re.search(r"full_key: (\S+)", told)
    missing = re.search(r"Key '.+?' (?:is )?not in '(.+?)'", told)
    if option and missing:
        return unknown_option(option[1], _options_of(missing[1]))
    told = re.sub(r"^In '.+?': \w+ raised while composing config:\n", "", told)
    told = re.sub(r"\n\s*(?:full_key|reference_type|object_type).*", "", told)
    line = " ".join(told.split())
    return f"{option[1]}: {line}" if option else line


def one_line(error: Exception) -> str:
    """Return an error's message without its line breaks."""
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())
