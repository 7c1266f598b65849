"""CSV files that grow, and notice when somebody else touches them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from fedexp.core.options import FedexpError
from fedexp.core.tables import Position, Table, content_at


def _grown(path: Path) -> Table:
    table = Table(path, ["round", "value"])
    table.append([[1, 0.5], [1, None]])
    return table


def test_a_position_is_rows_bytes_and_hash(tmp_path: Path) -> None:
    table = _grown(tmp_path / "t.csv")
    content = b"round,value\n1,0.5\n1,\n"
    assert (tmp_path / "t.csv").read_bytes() == content
    assert table.kept_position() == Position(2, 21, hashlib.sha256(content).hexdigest())


def test_it_goes_on_where_it_stood(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table = _grown(path)
    position = table.position()
    table.append([[2, 0.75]])
    table.close()
    with path.open("ab") as file:
        file.write(b"2,0.")  # a process that was killed leaves half a line
    again = Table(path, ["round", "value"], position)
    again.append([[2, 0.25]])
    assert path.read_bytes() == b"round,value\n1,0.5\n1,\n2,0.25\n"
    whole = Position(3, 28, hashlib.sha256(path.read_bytes()).hexdigest())
    assert again.position() == whole
    again.close()


def _delete(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"9,9\n")


def _replaced(path: Path) -> None:
    content = path.read_bytes()
    path.rename(path.with_name("aside"))
    path.write_bytes(content)


def _changed(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.9"))


@pytest.mark.parametrize("change", [_delete, _cut, _longer, _replaced])
def test_what_somebody_else_does_meanwhile_is_noticed(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "t.csv"
    for step in ("append", "close"):
        table = _grown(path)
        change(path)
        with pytest.raises(FedexpError, match=str(path)):
            table.append([[2, 1]]) if step == "append" else table.close()
        table.close(checked=False)


@pytest.mark.parametrize("change", [_delete, _cut, _changed])
def test_what_was_changed_since_cannot_go_on(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "t.csv"
    table = _grown(path)
    position = table.position()
    table.close()
    assert content_at(path, position) == path.read_bytes()
    change(path)
    with pytest.raises(FedexpError, match=str(path)):
        content_at(path, position)
    with pytest.raises(FedexpError, match=str(path)):
        Table(path, ["round", "value"], position)
