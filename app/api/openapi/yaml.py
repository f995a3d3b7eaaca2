"""JSON values as YAML in block style: enough for one document, so that no YAML library is needed to serve it."""

from __future__ import annotations

import json
import re
from typing import Any, Final

_PLAIN: Final = re.compile(r"[A-Za-z/$_][\w $/.(){}+-]*(?<! )", re.ASCII)
_WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"})


def dump(value: Any) -> str:
    """A document; member order is kept."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict) and value:
        lines = []
        for name, member in value.items():
            lines += _member(f"{_scalar(str(name))}:", member)
        return lines
    if isinstance(value, list) and value:
        lines = []
        for member in value:
            inner = _lines(member)
            lines.append(f"- {inner[0]}")
            lines += [f"  {line}" for line in inner[1:]]
        return lines
    return [_scalar(value)]


def _member(head: str, value: Any) -> list[str]:
    inner = _lines(value)
    if isinstance(value, dict | list) and value:
        return [head, *(f"  {line}" for line in inner)]
    return [f"{head} {inner[0]}"]


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    text = json.dumps(value, ensure_ascii=False)
    # YAML 1.1, which many readers still speak, knows no exponent without a point.
    return text.replace("e", ".0e") if isinstance(value, float) and "." not in text else text
