"""Files of your own: tables, arrays and folders of images, without code."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fedexp.core.options import FedexpError, one_of, range_errors, ranged
from fedexp.data import own_files
from fedexp.data.assembling import Found, Wanted
from fedexp.data.assignment import Holders
from fedexp.data.columns import AUTO, CLASSIFICATION, REGRESSION
from fedexp.data.examples import Examples, Spec
from fedexp.data.scaling import agreed, applied, described
from fedexp.datasets.base import Dataset, Fitted, ImageDataset, register

if TYPE_CHECKING:
    from torch import Tensor

FEDERATED, OFF = "federated", "off"


class Known(NamedTuple):
    """What is known of files once they were read; it goes along to other processes, the files do not.

    Attributes:
        path: Absolute: a job may change its folder.
        version: Of the files; see :meth:`fedexp.datasets.base.Dataset.version`.
        spec: As of any data set.
        kind: Likewise.
        task: Likewise.
        names: What the columns are called; none where the inputs are no table.
        is_number: Which of them are numbers and not categories.
    """

    path: Path
    version: str
    spec: Spec
    kind: str
    task: str
    names: tuple[str, ...]
    is_number: tuple[bool, ...]


@register
@dataclass(frozen=True)
class Files(Dataset):
    """Your own CSV, Parquet and NPZ files, one or a folder with one per client; or images by class.

    Every column but the target and the client is an input: numbers as they are, words as categories (a 0
    or 1 for each). Empty cells, ``NA``, ``N/A``, ``NaN``, ``null`` and ``?`` are missing values: a number
    becomes the mean of its column over all clients' training rows, a category 0 everywhere; a missing
    target is refused. The target decides the task: words, or at most 20 different whole numbers, are
    classes; other numbers make a regression.

    Clients agree on names of columns, on categories, classes, means and variances; no row leaves its
    owner for that. The page on your own data, ``docs/own_data.md``, has every rule.
    """

    fills = True

    name: str = "files"
    path: str | None = None
    """A file (.csv, .parquet, .npz), a folder of files, a folder of images by class, or a saved Hugging
    Face data set; its folder test, if there is one, holds the test data."""
    target: str = "target"
    """Name of the column that is to be predicted."""
    client: str | None = None
    """Name of the column that says whose a row is; null takes every file of a folder for a client's."""
    test_fraction: float | None = ranged(None, gt=0, lt=1)
    """Share of every owner's rows that becomes test data where none is given; null is 0.2."""
    split_seed: int = ranged(0, ge=0)
    """Seed of that split; it does not follow the experiment's seed, so that all runs are tested alike."""
    predict: str = one_of(AUTO, AUTO, CLASSIFICATION, REGRESSION)
    """What the target is; auto goes by its values."""
    categories: list[str] = field(default_factory=list)
    """Columns whose numbers are codes of categories."""
    ignore: list[str] = field(default_factory=list)
    """Columns that are left out, such as names and identifiers."""
    side: int | None = ranged(None, ge=1)
    """Height and width in pixels that images of files are resized to; null takes them as they are."""
    scale: str = one_of(FEDERATED, FEDERATED, OFF)
    """federated scales numbers to mean 0 and deviation 1, by sums that each client computes on its own
    training rows; off leaves them as they are."""

    @property
    def task(self) -> str:  # type: ignore[override]  # files decide it
        """What the target asks for."""
        return self._known.task

    @property
    def kind(self) -> str:  # type: ignore[override]  # files decide it
        """What the inputs are."""
        return self._known.kind

    @property
    def metrics(self) -> tuple[str, ...]:  # type: ignore[override]  # files decide it
        """What says more than the accuracy where one class is rare, as in many tables."""
        is_table = self.task == CLASSIFICATION and self.kind != ImageDataset.kind
        return ("auroc", "balanced_accuracy") if is_table else ()

    @property
    def spec(self) -> Spec:
        """Shape, classes, owners and sizes."""
        return self._known.spec

    @property
    def _known(self) -> Known:
        """Return what the files hold, which were read at the first call."""
        kept: Known | None = vars(self).get("_kept")
        if kept is None:
            path, version = _place(self)
            found = _read(self, path, version)
            schema = found.schema
            names = () if schema is None else tuple(schema.names)
            numbers = () if schema is None else tuple(schema.is_number.tolist())
            kept = Known(path, version, found.spec, found.kind, found.task, names, numbers)
            object.__setattr__(self, "_kept", kept)
        return kept

    def version(self) -> str:
        """Differs from that of another instance if a file was written in between."""
        return self._known.version

    def ensure(self) -> None:
        """Read the files."""
        assert self._known

    def load(self) -> tuple[Examples, Examples]:
        """Return what the files hold, numbers not scaled yet, missing ones NaN."""
        found = _read(self, self._known.path, self._known.version)
        return found.train, found.test

    def fitted(self, train: Examples, test: Examples, held: Holders) -> Fitted:
        """Fill and scale numbers by what the clients know of their own training rows."""
        known = self._known
        if known.kind == "image":
            return Fitted(train, test)
        found = agreed(
            train.inputs, held
        )  # missing numbers are filled also where nothing is scaled
        is_number = np.array(known.is_number or [True] * len(found.mean))
        scaled = is_number & (self.scale == FEDERATED)
        parts = [
            Examples(applied(part.inputs, found, scaled), part.targets, part.owners)
            for part in (train, test)
        ]
        names = known.names or [str(number) for number in range(len(found.mean))]
        return Fitted(parts[0], parts[1], described(names, found, is_number, scaled))

    def prepare(self, batch: Tensor) -> Tensor:
        """Return numbers as float32; pixels as those of ImageDataset, -1 to 1."""
        return (
            batch.float().div_(127.5).sub_(1.0) if self.kind == ImageDataset.kind else batch.float()
        )


_KEPT = 2
_cache: OrderedDict[str, Found] = OrderedDict()
"""What was read, by options and by the versions of files."""


def _place(page: Files) -> tuple[Path, str]:
    """Return where the files are, absolute, and their version.

    Files are read while the configuration is made, before anybody else looks at ranges.
    """
    if errors := list(range_errors(page, "dataset.")):
        raise FedexpError("\n".join(errors))
    if not page.path:
        raise FedexpError(
            "dataset=files needs dataset.path=PATH: a file (.csv, .parquet, .npz), or a folder of files, "
            "one per client"
        )
    path = Path(page.path)
    with _readable(path):
        return path.absolute(), own_files.version(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say in a line which file the system does not let us read.

    Raises:
        FedexpError: If there is one.
    """
    try:
        yield
    except OSError as error:
        raise FedexpError(
            f"dataset.path={path}: {error.filename or path} cannot be read: {error.strerror or error}"
        ) from error


def _read(page: Files, path: Path, version: str) -> Found:
    told: dict[str, Any] = {f.name: getattr(page, f.name) for f in fields(Wanted)}
    for name in ("categories", "ignore"):
        told[name] = tuple(told[name])
    wanted = Wanted(**told)
    key = repr((path, version, wanted))
    if key not in _cache:
        # Messages name files as the user did.
        here = Path(page.path or "")
        with _readable(here):
            _cache[key] = own_files.read(here if here.absolute() == path else path, wanted)
    _cache.move_to_end(key)
    while len(_cache) > _KEPT:
        _cache.popitem(last=False)
    return _cache[key]
