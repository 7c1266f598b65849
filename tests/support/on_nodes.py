"""What three hospitals agree on, asked in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from fedexp.data.agreement import Asked
from fedexp.data.own_rows import answered, read_own
from fedexp.data.surveying import survey_nodes
from fedexp.datasets.on_nodes import OnNodes
from fedexp.surveying import preset
from support.documents import ROOT

HOSPITALS = ROOT / "docs" / "hospitals"


def write_preset(folder: Path) -> Path:
    """Write what ``fedexp survey FOLDER/dataset/hospitals.yaml dataset.target=outcome`` would."""
    asked = Asked(target="outcome")
    owners = {k: read_own(f, None, asked) for k, f in enumerate(HOSPITALS.glob("*.csv"))}

    def ask(kind: str, questions: Mapping[int, str]) -> dict[int, str]:
        return {
            node: json.dumps(answered(owners[node], kind, json.loads(text)))
            for node, text in questions.items()
        }

    found = survey_nodes(ask, list(owners), asked)
    file = folder / "dataset" / "hospitals.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(preset(OnNodes(target=asked.target), found.plain(), file))
    return file
