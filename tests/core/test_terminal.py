from __future__ import annotations

import pytest

from fedexp.core.terminal import printable, width


def test_what_an_encoding_lacks_is_written_otherwise() -> None:
    text = "0.5 ± 0.1, −0.2 → é"
    assert printable(text, "ascii") == "0.5 +-0.1, -0.2 -> \\xe9"
    assert printable(text, "utf-8") == text
    assert printable("0.5 ± é", "latin-1") == "0.5 ± é"


@pytest.mark.parametrize(("columns", "shown"), [("72", 72), ("10", 60), ("500", 160)])
def test_the_width_is_the_terminals_within_reason(
    monkeypatch: pytest.MonkeyPatch, columns: str, shown: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert width() == shown
