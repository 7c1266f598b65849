"""Tables that lie on SuperNodes, which nobody else sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedexp.core.options import FedexpError, Plan, one_of, ranged
from fedexp.data.agreement import Agreement, Asked, agreement_of
from fedexp.data.assembling import FRACTION
from fedexp.data.columns import AUTO, CLASSIFICATION, REGRESSION
from fedexp.data.examples import Examples, Spec
from fedexp.data.own_rows import read_own
from fedexp.data.scaling import described
from fedexp.datasets.base import Dataset, register
from fedexp.datasets.files import FEDERATED, OFF

NOBODY = Spec((0,), (), 0, 0)


@register
@dataclass(frozen=True)
class OnNodes(Dataset):
    """Tables (CSV, Parquet, NPZ) that lie on SuperNodes: every client reads its own, and nobody else's.

    ``fedexp survey`` asks the nodes once, lets them agree, and writes a preset of this page, which runs
    then name. Columns, categories, scaling and the split into training and test rows are those of
    ``dataset=files``, and so is the model, to the last bit. After every round each client tests the
    model on its own test rows; in the place of a test set of the server stands the mean over clients, by
    examples. It takes ``partition=given`` and ``backend=deployment``; docs/deployment.md has the steps,
    and what the server learns.
    """

    remote = True
    fills = True

    name: str = "on_nodes"
    target: str = "target"
    """Name of the column that is to be predicted."""
    test_fraction: float = ranged(FRACTION, gt=0, lt=1)
    """Share of every client's rows that becomes test data, where it has no folder test."""
    split_seed: int = ranged(0, ge=0)
    """Seed of that split; it does not follow the experiment's seed, so that all runs are tested alike."""
    predict: str = one_of(AUTO, AUTO, CLASSIFICATION, REGRESSION)
    """What the target is; auto goes by its values."""
    categories: list[str] = field(default_factory=list)
    """Columns whose numbers are codes of categories."""
    ignore: list[str] = field(default_factory=list)
    """Columns that are left out, such as names and identifiers: nothing is told of them."""
    scale: str = one_of(FEDERATED, FEDERATED, OFF)
    """federated scales numbers to mean 0 and deviation 1, by sums that each client computes on its own
    training rows; off leaves them as they are."""
    agreed: dict[str, Any] = field(default_factory=dict)
    """What the clients agreed on; fedexp survey writes it."""

    @property
    def agreement(self) -> Agreement | None:
        """What the clients agreed on; None before they were asked.

        Raises:
            FedexpError: If it cannot be read.
        """
        kept: Agreement | None = vars(self).get("_kept")
        if kept is None and self.agreed:
            kept = agreement_of(self.agreed)
            object.__setattr__(self, "_kept", kept)
        return kept

    @property
    def task(self) -> str:  # type: ignore[override]  # the target decides it
        """What the target asks for."""
        found = self.agreement
        is_regression = found is not None and not found.schema.classes
        return REGRESSION if is_regression else CLASSIFICATION

    @property
    def metrics(self) -> tuple[str, ...]:  # type: ignore[override]  # the target decides it
        """What ``dataset=files`` measures of such a table, too."""
        return ("auroc", "balanced_accuracy") if self.task == CLASSIFICATION else ()

    @property
    def spec(self) -> Spec:
        """Shape, classes, owners and sizes; of nothing before the nodes were asked."""
        found = self.agreement
        return NOBODY if found is None else found.spec

    @property
    def asked(self) -> Asked:
        """How clients are to read their rows."""
        return Asked(
            self.target,
            self.predict,
            tuple(self.categories),
            tuple(self.ignore),
            self.test_fraction,
            self.split_seed,
        )

    def errors(self, plan: Plan) -> list[str]:
        """The nodes must have been asked, about what the options say."""
        found = self.agreement
        if found is None:
            return [
                "dataset=on_nodes needs what the nodes agreed on: fedexp survey FOLDER/dataset/NAME.yaml "
                "asks them, then fedexp --config-dir FOLDER dataset=NAME"
            ]
        return [
            f"dataset.{name}={now}: the nodes agreed with {found.asked.get(name)}; survey them again, or "
            "leave it as it was"
            for name, now in self.asked.plain().items()
            if found.asked.get(name) != now
        ]

    def version(self) -> str:
        """Return the hash of what was agreed."""
        found = self.agreement
        return "" if found is None else found.sha256

    def load(self) -> tuple[Examples, Examples]:
        """Refuse.

        Raises:
            FedexpError: Always.
        """
        raise FedexpError(f"dataset={self.name}: its examples lie on the nodes, and nowhere else")

    def read(self, path: Path, owner: str | None) -> tuple[Examples, Examples]:
        """Return the training and the test examples of one client, on its node, as models see them.

        Args:
            path: Its file or folder.
            owner: What it is called; None is the name of the file.

        Raises:
            FedexpError: If they cannot be read, or are others than were agreed on.
        """
        found = self.agreement
        assert found is not None
        return read_own(path, owner, self.asked).agreed(found, self._scaled(found))

    def described(self) -> list[dict[str, Any]]:
        """Say of every column how a raw value becomes what the model sees."""
        found = self.agreement
        assert found is not None
        schema = found.schema
        return described(schema.names, found.scaling, schema.is_number, self._scaled(found))

    def _scaled(self, found: Agreement) -> npt.NDArray[np.bool_]:
        return found.schema.is_number & (self.scale == FEDERATED)
