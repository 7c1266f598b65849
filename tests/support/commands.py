"""Commands as people type them, right and wrong: drawn from the schema by hypothesis."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from hypothesis import strategies as st

from fedexp import attacks, metrics
from fedexp.config.clients import ClientsConfig
from fedexp.config.composition import plan
from fedexp.config.schema import GROUPS, Config
from fedexp.core.options import ConfigError

NOT_HERE = {
    "dataset": {"cifar10", "cifar100", "emnist", "fashion_mnist", "kmnist", "mnist", "svhn"}
}
"""Choices whose files would have to be downloaded; a command with them is only planned."""

NONSENSE = (
    *("", "null", "abc", "-1", "0", "1", "0.5", "1e400", "nan", "inf", "-0.0", "1e-320", "10**3"),
    *(
        "true",
        "'true'",
        "''",
        "'a b'",
        '"a, b"',
        "[1,2]",
        "[[1],[2],[3]]",
        "[]",
        "[1",
        "{a:1}",
        "{}",
    ),
    *("1,2", "1,1", "a,b", "range(0,3)", "range(3,0)", "choice(1,2)", "interval(0,1)", "glob(*)"),
    *("${seed}", "${nope}", "${rounds", "\\${x}", "${oc.env:NOPE}", "${strategy.name}", "${.seed}"),
    *(
        "???",
        "9" * 30,
        "ä",
        "a=b",
        "a:b",
        "../x",
        "a/b",
        "~",
        "*",
        "@",
        "#x",
        "0x10",
        "1_000",
        "[null]",
    ),
    *(
        "'it''s'",
        "shuffle(1,2)",
        "tag(a,1)",
        "sort(2,1)",
        "int(1.5)",
        "float(1)",
        "str(1)",
        "json_str(1)",
    ),
)
"""Values that hardly any option takes, in all the forms that Hydra's grammar knows."""


def _fields(entry: type, prefix: str) -> dict[str, dataclasses.Field[Any]]:
    """Return every option of a dataclass under its path."""
    found: dict[str, dataclasses.Field[Any]] = {}
    hints = typing.get_type_hints(entry)
    for item in dataclasses.fields(entry):
        kind, path = hints[item.name], f"{prefix}{item.name}"
        if dataclasses.is_dataclass(kind) and path not in GROUPS:
            found |= _fields(typing.cast(type, kind), f"{path}.")
        elif path not in GROUPS:
            found[path] = item
    return found


def options() -> dict[str, dataclasses.Field[Any]]:
    """Return every option that any choice has, under its path."""
    found = _fields(Config, "") | _fields(ClientsConfig, "clients.")
    for group, registry in GROUPS.items():
        for page in registry.pages().values():
            found |= _fields(page, f"{group}.")
    return found


OPTIONS = options()
CHOICES = {
    **{group: list(registry.pages()) for group, registry in GROUPS.items()},
    "clients": ["lesson", "cross_silo", "cross_device"],
    "tracking": ["csv", "wandb", "tensorboard", "[wandb,tensorboard]"],
    "experiment": ["lesson", "tune", "parallel", "niid_fmnist", "null"],
    "debug": ["smoke", "null"],
    "hydra/launcher": ["basic", "joblib", "nope"],
    "hydra/sweeper": ["basic", "optuna", "nope"],
}
HYDRAS = (
    *("hydra.run.dir=out", "hydra.sweep.dir=out", "hydra.sweep.subdir=${hydra.job.num}"),
    *("hydra.sweep.subdir=${strategy.name}", "hydra.run.dir=${nope}", "hydra.sweep.dir=${name}"),
    *("hydra.job.chdir=true", "hydra.verbose=true", "hydra.mode=MULTIRUN", "hydra.mode=NOPE"),
    *(
        "hydra.sweeper.params={seed:'1,2'}",
        "hydra.nope=1",
        "+hydra.nope=1",
        "hydra.output_subdir=x",
    ),
    *(
        "hydra.sweeper.max_batch_size=1",
        "~hydra.run",
        "hydra=null",
        "hydra.run.dir=null",
        "hydra.run=3",
    ),
    *("hydra.searchpath=[file:///nowhere]", "hydra.job.name='a b'", "hydra.sweep.subdir=null"),
)


@st.composite
def fitting(draw: st.DrawFn, item: dataclasses.Field[Any]) -> str:
    """Draw a value that an option's range allows, or one just beside it."""
    if choices := item.metadata.get("choices"):
        return str(draw(st.sampled_from(choices)))
    if item.name in ("metrics", "objective", "metric"):
        return str(draw(st.sampled_from([*metrics.choices(), "best_accuracy", "worst10"])))
    if item.name == "kind":
        return str(draw(st.sampled_from(attacks.choices())))
    bounds = [bound for _, bound in item.metadata.get("bounds", ())]
    near = [bound + step for bound in bounds for step in (-1, -0.1, 0, 0.1, 1, 2)]
    whole = "int" in str(item.type) and "float" not in str(item.type)
    numbers = [int(number) if whole else number for number in (*near, 0.1, 0.5, 1, 2, 3)]
    return (
        str(draw(st.sampled_from(numbers))) if bounds or whole else draw(st.sampled_from(NONSENSE))
    )


@st.composite
def override(draw: st.DrawFn) -> str:
    """Draw a word of a command line."""
    kind = draw(
        st.sampled_from(("fitting",) * 5 + ("choice",) * 4 + ("wrong", "odd", "hydra", "text"))
    )
    if kind == "hydra":
        return draw(st.sampled_from(HYDRAS))
    if kind == "text":
        return draw(st.text("ab.=,'\"[]{}()$\\~+@:/ \n\t-0", max_size=12))
    if kind == "choice":
        group = draw(st.sampled_from(sorted(CHOICES)))
        names = draw(st.lists(st.sampled_from([*CHOICES[group]]), min_size=1, max_size=2))
        return f"{draw(st.sampled_from(('', '', '', '+', '++')))}{group}={','.join(names)}"
    path = draw(st.sampled_from(sorted(OPTIONS)))
    if kind == "fitting":
        return f"{path}={draw(fitting(OPTIONS[path]))}"
    value = draw(st.sampled_from(NONSENSE))
    if kind == "wrong":
        return f"{path}={value}"
    prefix = draw(st.sampled_from(("+", "++", "~", "~~", "")))
    bent = draw(st.sampled_from((path, path[:-1], path.split(".")[0], f"{path}.x", path.upper())))
    return f"{prefix}{bent}" if draw(st.booleans()) else f"{prefix}{bent}={value}"


def commands() -> st.SearchStrategy[tuple[list[str], bool]]:
    """Return a strategy of words, and whether it is a multirun."""
    return st.tuples(st.lists(override(), min_size=1, max_size=4), st.booleans())


def refused(words: list[str], *, multirun: bool) -> list[str]:
    """Return the lines with which a command is refused; none if it is sound."""
    try:
        plan(words, multirun=multirun)
    except ConfigError as error:
        return error.errors
    return []
