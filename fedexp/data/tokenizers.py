"""Texts to tokens: by the tokenizer of a pre-trained network, or word by word without one.

A folder's ``tokenizer.json`` says all of how its texts are cut; nothing else in the folder is asked but
which token pads. What was cut is kept in the user's cache, under a name that follows from the texts, the
tokenizer and the length.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedexp.core.files import cache_folder, write_whole
from fedexp.core.options import FedexpError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Tokens = npt.NDArray[np.int32]

FILE = "tokenizer.json"
OLD_FILES = (
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
"""What a tokenizer that is written in Python has in place of it."""

WORD = re.compile(r"\w+")
PADDING = 0
AT_ONCE = 1_000


class Vocabulary(NamedTuple):
    """What a tokenizer knows: tokens are 0 .. size - 1, and one of them pads."""

    size: int
    padding: int


def tokenizer_sha256(folder: str) -> str:
    """Return the hash of a folder's tokenizer; an empty one where it has none."""
    for names in ((FILE,), OLD_FILES):
        digest, found = hashlib.sha256(), False
        for name in names:
            with suppress(OSError):
                digest.update(Path(folder, name).read_bytes())
                found = True
        if found:
            return digest.hexdigest()
    return ""


def vocabulary_of(folder: str) -> Vocabulary:
    """Return what a folder's tokenizer knows.

    Raises:
        FedexpError: If it cannot be read, or names no token that could pad.
    """
    return _vocabulary(folder, tokenizer_sha256(folder), tuple(_padding_words(folder)))


def cut(parts: Sequence[Sequence[str]], folder: str, length: int) -> list[Tokens]:
    """Cut texts into tokens, or read what was made of them before.

    Args:
        parts: Lists of texts.
        folder: The tokenizer's; it adds the tokens that its network wants around a text.
        length: Tokens in a row; longer texts lose their end, shorter ones are padded behind it.

    Returns:
        Tokens of every list, int32, shape (texts, length).

    Raises:
        FedexpError: If the tokenizer cannot be read.
    """
    padding = vocabulary_of(folder).padding
    kept = _cache_file(parts, f"{tokenizer_sha256(folder)} {length} {padding}")
    found = _read(kept, [(len(part), length) for part in parts])
    if found is None:
        tokenizer = _tokenizer(folder)
        around = tokenizer.num_special_tokens_to_add(is_pair=False)
        if length <= around:
            raise FedexpError(
                f"dataset.length must be > {around}, the tokens that dataset.tokenizer={folder} puts "
                f"around a text, got {length}"
            )
        tokenizer.no_padding()
        tokenizer.enable_truncation(length)
        found = [_rows(_ids(tokenizer, part), length, padding) for part in parts]
        _keep(kept, found)
    return found


def _ids(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[Sequence[int]]:
    for start in range(0, len(texts), AT_ONCE):  # what it says of a text takes more than the text
        yield from (entry.ids for entry in tokenizer.encode_batch(texts[start : start + AT_ONCE]))


def cut_into_words(texts: Sequence[str], buckets: int, length: int) -> Tokens:
    """Cut texts into words, in small letters, and put each by its CRC-32 into one of the buckets.

    Nothing is learned from anybody's texts for that; words that share a bucket are taken for one.

    Args:
        texts: What is cut.
        buckets: Tokens 1 .. buckets - 1 are words, 0 pads.
        length: Tokens in a row.

    Returns:
        Tokens, int32, shape (texts, length).
    """
    rows = (
        [
            1 + zlib.crc32(word.encode()) % (buckets - 1)
            for word in WORD.findall(text.lower())[:length]
        ]
        for text in texts
    )
    return _rows(rows, length, PADDING)


def _rows(rows: Iterable[Sequence[int]], length: int, padding: int) -> Tokens:
    rows = list(rows)
    found = np.full((len(rows), length), padding, dtype=np.int32)
    for place, row in enumerate(rows):
        found[place, : len(row)] = row
    return found


@lru_cache(maxsize=8)
def _vocabulary(folder: str, sha256: str, padding_words: tuple[str, ...]) -> Vocabulary:
    tokenizer = _tokenizer(folder)
    size = 1 + max(tokenizer.get_vocab().values(), default=0)
    for name in padding_words:
        number = tokenizer.token_to_id(name)
        if number is not None:
            return Vocabulary(size, number)
    own = (tokenizer.padding or {}).get("pad_id")
    if isinstance(own, int) and 0 <= own < size:
        return Vocabulary(size, own)
    raise FedexpError(
        f"dataset.tokenizer={folder} names no token that pads: set pad_token (or eos_token) in its "
        "tokenizer_config.json"
    )


def _padding_words(folder: str) -> list[str]:
    """Return what the folder calls its padding, then the end of a text."""
    told: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        with suppress(OSError, ValueError):
            content = json.loads(Path(folder, name).read_bytes())
            told |= content if isinstance(content, dict) else {}
    entries = [told.get(key) for key in ("pad_token", "eos_token")]
    words = [entry.get("content") if isinstance(entry, dict) else entry for entry in entries]
    return [word for word in words if isinstance(word, str)]


def _tokenizer(folder: str) -> Tokenizer:
    if find_spec("tokenizers") is None:
        raise FedexpError(
            "dataset.tokenizer needs the package tokenizers: pip install 'fedexp[transformers]'"
        )
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(Path(folder, FILE).read_text(encoding="utf-8"))
    except Exception as error:  # the package's own errors have no common name
        reason = " ".join(str(error).split())
        raise FedexpError(
            f"dataset.tokenizer={folder}: {FILE} is damaged or absent ({reason}); "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it"
        ) from error


def _cache_file(parts: Sequence[Sequence[str]], how: str) -> Path | None:
    """Return where these tokens are kept; None where there is no place for them."""
    place = cache_folder()
    if place is None:
        return None
    digest = hashlib.sha256(f"{version('tokenizers')} {how}\n".encode())
    for part in parts:
        digest.update(f"{len(part)}\n".encode())
        for text in part:
            content = text.encode()
            digest.update(f"{len(content)} ".encode() + content)
    return place / f"tokens-{digest.hexdigest()[:32]}.npz"


def _read(path: Path | None, shapes: Sequence[tuple[int, int]]) -> list[Tokens] | None:
    """Return what an earlier run kept; None if it cannot be read or holds anything else."""
    if path is None:
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            found = [stored[f"part{number}"] for number in range(len(shapes))]
    except Exception:  # a damaged archive fails in many ways, and is only written anew
        return None
    sound = [part.shape for part in found] == list(shapes)
    return found if sound and all(part.dtype == np.int32 for part in found) else None


def _keep(path: Path | None, parts: Sequence[Tokens]) -> None:
    if path is None:
        return
    content = io.BytesIO()
    named: dict[str, Any] = {f"part{number}": part for number, part in enumerate(parts)}
    np.savez_compressed(content, **named)
    with suppress(OSError):  # a home that cannot be written only costs the next run its head start
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.getvalue())
