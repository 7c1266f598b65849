"""A configuration survives being one row of names and values."""

from __future__ import annotations

import pytest

from fedexp.config.composition import compose_config
from fedexp.config.flat import flat, from_flat
from fedexp.core.options import ConfigError

AWKWARD = (
    ("name='null'",),
    ("name='a: b'",),
    ("stop.patience=3", "metrics=[macro_f1]"),
    ("partition=dirichlet", "partition.alpha=1e-5", "seed=12"),
    (
        "clients.byzantine.fraction=0.4",
        "clients.byzantine.kind=gaussian",
        "training.batch_size=full",
    ),
    ("strategy=scaffold", "backend=deployment", "backend.timeout=20"),
)


@pytest.mark.parametrize("overrides", AWKWARD, ids=lambda words: words[0])
def test_a_configuration_is_the_same_again(overrides: tuple[str, ...]) -> None:
    config = compose_config(list(overrides))
    row = flat(config)
    assert {type(value) for value in row.values()} <= {bool, int, float, str}
    assert from_flat(row) == config


def test_a_value_can_be_changed_in_the_row() -> None:
    row = flat(compose_config([]))
    changed = from_flat({**row, "rounds": 7, "stop.patience": 2, "metrics": "[macro_f1]"})
    assert (changed.rounds, changed.stop.patience) == (7, 2)
    assert "macro_f1" in changed.measured


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("rounds", 0, "rounds must be >= 1, got 0"),
        ("strategy.name", "mine", "strategy=mine is not known here"),
        ("rounds", "[1", "rounds must be a value as YAML has it"),
        ("nope", 1, "nope"),
    ],
)
def test_what_is_wrong_in_the_row_is_told_in_a_line(option: str, value: object, told: str) -> None:
    row = flat(compose_config([]))
    with pytest.raises(ConfigError) as error:
        from_flat({**row, option: value})  # type: ignore[dict-item]
    assert len(error.value.errors) == 1
    assert told in error.value.errors[0]
