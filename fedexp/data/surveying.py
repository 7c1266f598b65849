"""How owners come to agree on data that nobody else sees: three questions to all of them.

Who asks, sees answers alone, and believes none of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fedexp.core.options import FedexpError
from fedexp.data.agreement import Agreement, Asked, in_order, plain_schema
from fedexp.data.columns import MAX_CATEGORIES, MAX_CLASSES, Cells, Schema, Survey, agree
from fedexp.data.scaling import Floats, added, mean_of, scaling_of

LONGEST = 4_000_000
"""Characters that an answer may have."""

MAX_COLUMNS, MAX_WORD, MAX_NAME = 10_000, 500, 100
"""Columns in an answer, characters of a word in it, and of an owner's name."""

Ask = Callable[[str, Mapping[int, str]], Mapping[int, str]]
"""From the kind of a question and node -> JSON to node -> JSON; whoever does not answer ends it."""


class UnusableAnswerError(Exception):
    """An answer that cannot be used; the message says why."""


def survey_nodes(ask: Ask, nodes: Sequence[int], asked: Asked) -> Agreement:
    """Have owners agree.

    Args:
        ask: Asks nodes.
        nodes: Their numbers.
        asked: How rows are to be read.

    Raises:
        FedexpError: If they do not go together, or an answer cannot be used; in one line.
    """
    how = asked.plain()
    first = _heard(ask("told", dict.fromkeys(nodes, json.dumps(how))), _told)
    order = _ordered({node: name for node, (name, *_) in first.items()})
    tests_given = _tests_given([(first[node][0], first[node][2]) for node in order])
    surveys = [first[node][3] for node in order]
    _check_targets(surveys, asked)
    schema = agree(surveys, asked.target, asked.predict, asked.categories)
    _check_schema(schema)
    rows = [first[node][1] for node in order]
    width = len(schema.names)
    questions = {
        node: {**how, "schema": plain_schema(schema), "before": sum(rows[:place])}
        for place, node in enumerate(order)
    }

    def then(kind: str, read: Callable[[dict[str, Any]], Any], **more: Any) -> list[Any]:
        told = {node: json.dumps({**question, **more}) for node, question in questions.items()}
        found = _heard(ask(kind, told), read)
        return [found[node] for node in order]

    second = then("summed", lambda content: _summed(content, width))
    counts, mean = mean_of([(answer[2], answer[3]) for answer in second])
    third = then("squared", lambda content: _numbers(content, "squares", width), mean=mean.tolist())
    num_test = [answer[1] for answer in second]
    if not sum(num_test):
        raise FedexpError(
            f"dataset.test_fraction={asked.test_fraction:g} is less than one row of every client (the "
            f"largest has {max(rows)} rows): a larger share, or test rows in the folder test"
        )
    squares = float(added([np.array([answer[4]]) for answer in second])[0])
    return Agreement(
        tuple(first[node][0] for node in order),
        tuple(rows),
        tuple(answer[0] for answer in second),
        tuple(num_test),
        tests_given,
        schema,
        scaling_of(counts, mean, third),
        0.0 if schema.classes else squares / sum(num_test),
        how,
    )


def _heard(answers: Mapping[int, str], read: Callable[[dict[str, Any]], Any]) -> dict[int, Any]:
    """Read answers; nothing in them is believed.

    Raises:
        FedexpError: If one cannot be used.
    """
    found = {}
    for node, text in answers.items():
        try:
            if len(text) > LONGEST:
                raise UnusableAnswerError(f"it has {len(text):,} characters")
            content = json.loads(text, parse_constant=_no_number)
            if not isinstance(content, dict):
                raise UnusableAnswerError("it is no JSON object")
            found[node] = read(content)
        except (UnusableAnswerError, ValueError, RecursionError) as error:
            raise FedexpError(
                f"SuperNode {node}: its answer to the survey cannot be used: {error}"
            ) from error
    return found


def _no_number(word: str) -> Any:
    raise UnusableAnswerError(f"it holds {word}")


def _told(content: dict[str, Any]) -> tuple[str, int, int | None, Survey]:
    """Read an answer to the first question: name, rows, test rows, survey."""
    name = _word(content, "owner", MAX_NAME)
    if not name:
        raise UnusableAnswerError("owner is empty")
    tests = None if content.get("test_rows") is None else _count(content, "test_rows", 0)
    told = content.get("columns")
    if not isinstance(told, dict) or len(told) > MAX_COLUMNS:
        raise UnusableAnswerError(f"columns must be at most {MAX_COLUMNS:,} columns by name")
    columns = {_checked("columns", column): _cells(column, c) for column, c in told.items()}
    targets = content.get("targets")
    many = targets is None
    numbers = frozenset(_UNSAID if many else _numbers(content, "targets", None).tolist())
    words = _words(content, "target_words", MAX_CLASSES + 1)
    if not numbers and not words:
        raise UnusableAnswerError("it says nothing of the target")
    a_word = _word(content, "a_word", 3 * MAX_WORD)
    survey = Survey(name, columns, numbers, frozenset(words), a_word)
    return name, _count(content, "rows", 1), tests, survey


_UNSAID = (0.25, 0.75)
"""Stands for the numbers of a target that makes a regression, which nobody tells."""


def _cells(column: str, told: Any) -> Cells:
    if not isinstance(told, dict):
        raise UnusableAnswerError(f"of column {column} it says nothing")
    if told.get("categories") is None:  # what these words are is not told
        known = [f"a word, number {k}" for k in range(MAX_CATEGORIES + 1)]
    else:
        known = _words(told, "categories", MAX_CATEGORIES)
    numbers, words = _count(told, "numbers", 0), _count(told, "words", 0)
    places = [_word(told, name, 3 * MAX_WORD) for name in ("a_number", "a_word")]
    if (numbers and not places[0]) or (words and not places[1]):
        raise UnusableAnswerError(f"of column {column} it says not where its cells are")
    return Cells(numbers, words, frozenset(known), *places)


def _summed(content: dict[str, Any], width: int) -> tuple[int, int, Floats, Floats, float]:
    """Read an answer to the second question: training and test examples, counts, sums, squares."""
    train = _count(content, "train", 1)
    counts = _numbers(content, "counts", width)
    if ((counts < 0) | (counts > train)).any():
        raise UnusableAnswerError(f"counts must lie between 0 and {train}")
    squares = _numbers({"target_squares": [content.get("target_squares")]}, "target_squares", 1)
    if squares[0] < 0:
        raise UnusableAnswerError("target_squares must be >= 0")
    sums = _numbers(content, "sums", width)
    return train, _count(content, "test", 0), counts, sums, float(squares[0])


def _count(content: Mapping[str, Any], name: str, fewest: int) -> int:
    value = content.get(name)
    if type(value) is not int or not fewest <= value < 2**40:
        raise UnusableAnswerError(f"{name} must be a whole number >= {fewest}")
    return value


def _numbers(content: Mapping[str, Any], name: str, width: int | None) -> Floats:
    values = content.get(name)
    sound = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    if not sound or len(values or ()) > MAX_COLUMNS * MAX_CATEGORIES:
        raise UnusableAnswerError(f"{name} must be a list of numbers")
    assert values is not None
    if width is not None and len(values) != width:
        raise UnusableAnswerError(f"{name} must be {width} numbers, got {len(values)}")
    try:
        found: Floats = np.array([float(value) for value in values])
    except OverflowError:
        found = np.array([math.inf])
    if not np.isfinite(found).all():
        raise UnusableAnswerError(f"{name} must be finite")
    return found


def _words(content: Mapping[str, Any], name: str, most: int) -> list[str]:
    values = content.get(name)
    if not isinstance(values, list) or len(values) > most:
        raise UnusableAnswerError(f"{name} must be a list of at most {most} words")
    return [_checked(name, value) for value in values]


def _word(content: Mapping[str, Any], name: str, longest: int) -> str:
    return _checked(name, content.get(name), longest)


def _checked(name: str, value: Any, longest: int = MAX_WORD) -> str:
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise UnusableAnswerError(
            f"{name} must hold printable words of at most {longest} characters"
        )
    return value


def _ordered(names: Mapping[int, str]) -> list[int]:
    """Return nodes in the order of clients.

    Raises:
        FedexpError: If two have one name.
    """
    by_name = {name: node for node, name in names.items()}
    for node, name in names.items():
        if by_name[name] != node:
            raise FedexpError(
                f"two SuperNodes say that they are {name}: give each a name of its own, --node-config "
                '\'data="PATH" client="NAME"\''
            )
    return [by_name[name] for name in in_order(list(by_name))]


def _tests_given(told: Sequence[tuple[str, int | None]]) -> bool:
    """Say whether owners have test rows in a file of their own.

    Raises:
        FedexpError: If some have, and others have not.
    """
    having = [name for name, rows in told if rows is not None]
    lacking = [name for name, rows in told if rows is None]
    if having and lacking:
        raise FedexpError(
            f"{having[0]} has test rows in a file of their own, and {lacking[0]} has not: give such a "
            "file to all, or to none"
        )
    return bool(having)


def _check_targets(surveys: Sequence[Survey], asked: Asked) -> None:
    """Refuse words in one place where numbers of a regression are in another.

    Raises:
        FedexpError: With both.
    """
    worded = next((told for told in surveys if told.target_words), None)
    unsaid = next((told for told in surveys if told.targets == frozenset(_UNSAID)), None)
    if worded is not None and unsaid is not None:
        raise FedexpError(
            f"column {asked.target} holds words at {worded.source}, and numbers of a regression at "
            f"{unsaid.source}: correct one, or dataset.predict=classification"
        )


def _check_schema(schema: Schema) -> None:
    """Refuse what cannot stand in a configuration, and a table without inputs.

    Raises:
        FedexpError: With the column.
    """
    if not schema.inputs:
        raise FedexpError(
            f"the clients' files have no column beside {schema.target}: there is nothing to learn from"
        )
    for name, words in (*schema.inputs, (schema.target, schema.classes)):
        if any("${" in word for word in (name, *words)):
            raise FedexpError(f"column {name}: ${{ must stand in no name and no word of it")
