"""The tutorial's notebook and file: run as they are printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support.bringing import bringing
from support.documents import ROOT, files_in

NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


def _cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_file_is_the_one_of_the_other_document() -> None:
    (file,) = files_in(ROOT / "docs" / "tutorial.md")
    assert file in files_in(ROOT / "docs" / "extend.md")


@pytest.mark.slow  # twelve runs and a figure: 15 s
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = ModuleType("notebook")  # as dataclasses want it
    monkeypatch.setitem(sys.modules, "notebook", notebook)
    space: dict[str, Any] = vars(notebook)
    with bringing(monkeypatch):
        for cell in _cells():
            exec(compile(cell, str(NOTEBOOK), "exec"), space)
    assert space["found"].problems() == []
    assert len(space["found"].runs) == 12
    gains = space["comparison"].table.set_index("row")["gain"].dropna()
    assert gains["fedavg partition.steepness=2"] > gains["fedavg partition.steepness=0"] > 0
    assert space["comparison"].gains["client"].nunique() == 5
    assert np.isfinite(space["tested"]["value"]).all()
