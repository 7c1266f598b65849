"""CSV, Parquet and NPZ files become the same columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedexp.core.options import FedexpError
from fedexp.data.table import Column, Table, column_of, written
from fedexp.data.table_files import read_table


def _texts(table: Table) -> dict[str, list[str | None]]:
    return {name: column.texts() for name, column in table.columns.items()}


def _finding(path: Path, *ignore: str) -> str:
    with pytest.raises(FedexpError) as caught:
        read_table(path, ignore)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


def _csv(folder: Path, text: str | bytes) -> Path:
    path = folder / "a.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_cells_are_numbers_words_or_missing() -> None:
    column = column_of([" 1", "2.50", "-3e2", "", "NA", "?", "NaN", "1_000", "x"])
    assert column.texts() == ["1", "2.5", "-300", None, None, None, None, "1_000", "x"]
    assert column.is_missing.tolist() == [False] * 3 + [True] * 4 + [False] * 2
    assert column.is_word.sum() == 2
    assert column_of(["1", "2"]).words is None


def test_numbers_are_read_to_the_last_bit() -> None:
    numbers = np.random.default_rng(0).standard_normal(100)
    assert (column_of([repr(number) for number in numbers.tolist()]).numbers == numbers).all()


def test_a_whole_number_is_called_so() -> None:
    assert [written(n) for n in (1.0, -2.0, 0.5, 1e20)] == ["1", "-2", "0.5", "1e+20"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators(tmp_path: Path, separator: str) -> None:
    lines = [["age", "sex"], ["61", '"fe,ma;le\t"'], [], ["", "male"], ["", ""]]
    text = "\r\n".join(separator.join(line) for line in lines)
    table = read_table(_csv(tmp_path, b"\xef\xbb\xbf" + text.encode()))
    assert _texts(table) == {"age": ["61", None], "sex": ["fe,ma;le", "male"]}
    assert table.rows.tolist() == [2, 4]
    assert table.place(1, "age").endswith("a.csv, line 4, column age")


def test_long_files_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a,b\n" + "".join(f"{k},{k if k != 7 else 'x'}\n" for k in range(20))
    whole = read_table(_csv(tmp_path, text))
    monkeypatch.setattr("fedexp.data.table_files._BLOCK", 3)
    parts = read_table(_csv(tmp_path, text))
    assert _texts(parts) == _texts(whole)
    assert parts.rows.tolist() == list(range(2, 22))
    assert parts.columns["a"].words is None


def test_a_cell_of_two_lines_does_not_shift_the_numbers_of_lines(tmp_path: Path) -> None:
    table = read_table(_csv(tmp_path, 'a,b\n"x\ny",1\nz,2\n'))
    assert table.rows.tolist() == [2, 4]


def test_all_formats_give_the_same_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "number": rng.standard_normal(20),
            "whole": rng.integers(0, 9, 20),
            "word": rng.choice(["a", "b"], 20),
            "flag": rng.random(20) < 0.5,
        }
    )
    frame.loc[3, "number"] = np.nan
    frame.to_csv(tmp_path / "a.csv", index=False)
    arrays: dict[str, Any] = {
        str(name): frame[name].to_numpy(str if name == "word" else None) for name in frame
    }
    np.savez(tmp_path / "a.npz", **arrays)
    told = [_texts(read_table(tmp_path / name)) for name in ("a.csv", "a.npz")]
    assert told[0] == told[1]
    pytest.importorskip("pyarrow")
    frame.astype({"word": "category"}).to_parquet(tmp_path / "a.parquet")
    assert _texts(read_table(tmp_path / "a.parquet")) == told[0]


def test_the_index_of_a_frame_is_no_column(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pd.DataFrame({"a": [1, 2]}, index=[5, 9]).to_parquet(tmp_path / "a.parquet")
    assert list(read_table(tmp_path / "a.parquet").columns) == ["a"]


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        ("", "FILE is empty: its first line must name the columns"),
        ("\n \n", "FILE is empty"),
        (",,\n", "FILE is empty"),
        ("a,b\n", "FILE holds no rows"),
        ("a,,b\n1,2,3\n", "FILE: column 2 has no name"),
        ("a,b,a\n1,2,3\n", "FILE: 2 columns are called a"),
        ("a,b\n1,2\n3\n", "FILE, line 3: 1 cells where the first line names 2 columns"),
        ("a,b\n1,2\n\n3,4,5\n", "FILE, line 4: 3 cells where"),
        ('a,b\n1,2\n3,"4\n', "FILE, line 3: unexpected end of data; correct the quotes"),
        (b"a,b\n1,2\nm\xfcller,4\n", "FILE, line 3: byte 0xfc is not UTF-8"),
        ("a,b\n1,2\n3,4\n".encode("utf-16"), "FILE, line 1: byte 0xff is not UTF-8"),
        ("a,b\n1,2\n-inf,4\n", "FILE, line 3, column a: a number must lie between -1e30 and 1e30"),
        ("a,b\n1,2\n3,4e31\n", "FILE, line 3, column b: a number must lie between -1e30 and 1e30"),
    ],
)
def test_what_is_wrong_with_a_text(tmp_path: Path, content: str | bytes, finding: str) -> None:
    assert _finding(_csv(tmp_path, content)).startswith(finding)


def test_what_is_wrong_with_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK\x03\x04 cut short")
    assert _finding(path).startswith("FILE is no archive of plain arrays")
    np.savez(path, a=np.zeros(3), b=np.zeros(4))
    assert _finding(path).endswith("a row for each example; a has 3, b has 4")
    np.savez(path, a=np.zeros((3, 2)), b=np.zeros((3, 2)), c=np.zeros(3))
    assert _finding(path).endswith("leave all but one out: dataset.ignore=[b]")
    table = read_table(path, ["b"])
    assert table.array is not None
    assert (table.array.shape, list(table.columns)) == ((3, 2), ["c"])
    np.savez(path, a=np.array([{}], dtype=object))
    assert _finding(path).startswith("FILE is no archive of plain arrays")
    np.savez(path, a=np.array([1j]))
    assert _finding(path).startswith("FILE, column a: holds complex128")


def test_what_is_wrong_with_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 cut short")
    assert _finding(path).startswith("FILE is no whole Parquet file")
    pd.DataFrame({"when": pd.to_datetime(["2026-01-02"]), "b": [1]}).to_parquet(path)
    assert _finding(path).startswith("FILE, column when: holds timestamp")
    assert list(read_table(path, ["when"]).columns) == ["b"]


def test_parquet_without_pyarrow_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert _finding(tmp_path / "a.parquet").endswith("pip install 'pyarrow>=16'")


def test_some_rows_of_a_table() -> None:
    table = Table("f", {"a": Column(np.array([1.0, 2.0, 3.0]))}, np.array([2, 3, 5]), "line")
    taken = table.take(np.array([2, 0]))
    assert (len(taken), taken.place(0, "a")) == (2, "f, line 5, column a")
    assert taken.columns["a"].texts() == ["3", "1"]
