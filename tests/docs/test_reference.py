"""docs/reference/ is what the code says."""

from __future__ import annotations

import importlib.util

from support.documents import ROOT


def test_the_reference_is_what_the_code_says() -> None:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    folder = ROOT / "docs" / "reference"
    found = {path.name: path.read_text() for path in folder.glob("*.md")}
    assert found == reference.pages(), "run python scripts/reference.py"
