"""Tables that packages bring: scaled by what the clients know together, a fifth for tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from fedexp.core.options import FedexpError
from fedexp.data.assignment import Holders
from fedexp.data.examples import Examples, Spec
from fedexp.data.loading import measure
from fedexp.data.scaling import agreed, applied
from fedexp.datasets.base import Dataset, Fitted

EVERY = 5
"""One row in so many of a class is a test row."""


class Table(NamedTuple):
    """A table as it was published.

    Attributes:
        inputs: float64, shape (N, columns); NaN where a number is missing.
        targets: Labels, int64, or numbers, float32, shape (N,).
        is_number: Which columns are numbers to be scaled, and not the 0 or 1 of a category.
        owners: Whose each row is, int64, shape (N,); None where nobody says.
        owner_names: What the owners are called.
    """

    inputs: npt.NDArray[np.float64]
    targets: npt.NDArray[np.int64] | npt.NDArray[np.float32]
    is_number: npt.NDArray[np.bool_]
    owners: npt.NDArray[np.int64] | None = None
    owner_names: tuple[str, ...] = ()


def bundled(dataset: str, loader: str, **options: Any) -> tuple[Any, Any]:
    """Return inputs and targets of a table that scikit-learn brings.

    Args:
        dataset: Who asks, for the message.
        loader: Name of the function in ``sklearn.datasets``.
        options: Its further arguments.

    Raises:
        FedexpError: If scikit-learn cannot be imported.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise FedexpError(
            f"dataset={dataset} comes with the package scikit-learn, which cannot be imported "
            f"({error}): pip install scikit-learn"
        ) from error
    inputs, targets = getattr(datasets, loader)(return_X_y=True, **options)
    return inputs, targets


@dataclass(frozen=True)
class TableDataset(Dataset):
    """Rows of numbers, scaled to mean 0 and deviation 1 by the clients' means and variances.

    Every fifth row of a class, or of a regression, is a test row, in the order of the file. A missing
    number becomes the mean of its column.

    Attributes:
        classes: What the labels are called; none in a regression.
    """

    fills = True
    classes: ClassVar[tuple[str, ...]] = ()

    def table(self) -> Table:
        """Return the table.

        Raises:
            FedexpError: If the package that brings it is not there, with how to install it.
        """
        raise NotImplementedError(f"dataset={self.name} does not say how it is read")

    @property
    def spec(self) -> Spec:
        """Columns, classes, owners and sizes, of a table that was read."""
        found = measure(self)
        owners = self.table().owner_names if found.owners else ()
        return replace(found, classes=self.classes, owners=owners)

    def ensure(self) -> None:
        """See to it that the package is there."""
        self.table()

    def load(self) -> tuple[Examples, Examples]:
        """Return training and test rows, not scaled yet."""
        inputs, targets, _, owners, _ = self.table()
        label = targets if self.classes else np.zeros(len(targets), dtype=np.int64)
        is_test = np.zeros(len(targets), dtype=bool)
        for name in np.unique(label):
            is_test[np.flatnonzero(label == name)[EVERY - 1 :: EVERY]] = True
        whole = Examples(inputs, targets, owners)
        return whole.subset(np.flatnonzero(~is_test)), whole.subset(np.flatnonzero(is_test))

    def fitted(self, train: Examples, test: Examples, held: Holders) -> Fitted:
        """Scale numbers by means and variances that the clients agree on, from sums over their rows."""
        found, is_number = agreed(train.inputs, held), self.table().is_number
        parts = [
            Examples(applied(part.inputs, found, is_number), part.targets, part.owners)
            for part in (train, test)
        ]
        return Fitted(parts[0], parts[1])
