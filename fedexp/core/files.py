"""Files that appear whole or not at all, and text without secrets."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SECRET = r"(?<![\w-])[\w-]*(?:api[_-]?key|token|secret|passw(?:or)?d)[\w-]*[\"']?[ \t]*[=:][ \t]*"
_VALUE = r"""(?:"(?:\\.|[^"\\])*"|'(?:''|[^'])*'|\[[^\]]*\]|[^\s,}\]]+)"""
HIDDEN = "<hidden>"


def without_secrets(text: str) -> str:
    """Hide what follows the name of a key, token, secret or password and ``=`` or ``:``.

    Also what stands before ``@`` in an address.
    """
    text = re.sub(r"(://)[^\s/]+@", rf"\g<1>{HIDDEN}@", text)
    return re.sub(rf"(?i)({_SECRET}){_VALUE}", rf"\g<1>{HIDDEN}", text)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step: a reader sees the old one or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Render what a JSON file holds."""
    return (json.dumps(content, indent=2) + "\n").encode()
