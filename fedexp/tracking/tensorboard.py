"""TensorBoard event files in the run's folder, under ``tensorboard/``."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping

from torch.utils.tensorboard import SummaryWriter

from fedexp.config.schema import config_bytes
from fedexp.core.plotting import import_matplotlib
from fedexp.federation.events import Ending, RunInfo


class TensorBoardMirror:
    """Scalars by round, and at the end the pictures and what was configured and found, as text."""

    wants_past = True
    id = ""

    def __init__(self, run: RunInfo) -> None:
        folder = run.folder / "tensorboard"
        if run.resume:  # the same rounds are written again; two curves would lie over each other
            shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))
        self._write("config", config_bytes(run.config).decode())

    def on_round(self, server_round: int, numbers: Mapping[str, float]) -> None:
        """Write the round's scalars, so that a TensorBoard that runs shows them."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, server_round)
        self._writer.flush()

    def finish(self, ending: Ending) -> list[str]:
        """Write pictures and summary, and close the file."""
        last = ending.summary.get("rounds", 0)
        import_matplotlib()
        from matplotlib.image import imread

        for name, picture in ending.pictures.items():
            pixels = imread(io.BytesIO(picture), format="png")
            self._writer.add_image(name, pixels, last, dataformats="HWC")
        self._write("summary", json.dumps(ending.summary, indent=2))
        self._writer.close()
        return []

    def _write(self, name: str, text: str) -> None:
        self._writer.add_text(name, "\n".join(f"    {line}" for line in text.splitlines()))
