"""What a client's reply carries, and how its failure is worded: one line, whatever it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedexp.core.files import without_secrets

LONGEST = 300
"""Characters of a reason; a client may send a book."""


@dataclass(frozen=True)
class Carries:
    """What every reply to training carries beside the weights and the number of examples.

    A reply that lacks one of these, or brings anything else, is refused.

    Attributes:
        arrays: Names of further arrays, such as ``control``. Each must hold one array for every parameter
            that gradients move, of its shape and dtype.
        numbers: Name -> the lowest and the highest value that the server can compute with.
        loss: Whether there is a training loss; there is none where a client never calls ``job.train``.
        free: Names of records whose arrays are not like the parameters. Their numbers must be finite, and
            the server says what else must hold of them (``Server.problem``).
    """

    arrays: tuple[str, ...] = ()
    numbers: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    loss: bool = True
    free: tuple[str, ...] = ()


def one_line(text: str) -> str:
    """Return a text as one line that can be printed, without secrets, cut where it is too long."""
    words = " ".join(text[: 20 * LONGEST].split())
    line = without_secrets("".join(c if c.isprintable() else "?" for c in words))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def told(error: BaseException) -> str:
    """Return what was raised as one line; ``str()`` of an error may itself raise one."""
    try:
        text = str(error)
    except Exception as other:
        text = f"(its text raised {type(other).__name__})"
    return one_line(f"{type(error).__name__}: {text}" if text else type(error).__name__)
