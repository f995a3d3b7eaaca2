"""What the clients of a round sent, were answered and saw: JSON lines, the checker's only word from their side.

| row | fields |
|---|---|
| `request` | of `tests.chaos.client.Request`: `type`, `items` …, `key` (with the type), `sha256` of its body |
| `answer` | `key`, `sha256`, `status`, `replayed`, `body`; `final`: asked after everything was over |
| `broken` | `key`, `error`: no answer came |
| `asked` | `what` (`cancel`, `undo`, `retry`, `replay`, `declare`, `read`), `job_id`, `status`, `body` |
| `job` | `job_id`, `state`, `summary`, `effects` |
| `items` | `job_id`, `final`, `items` as listed |
| `records` | `type`, `how` (`list`, `export`), `records`: all of the type, in the end |
| `history` | `type`, `record_id`, `versions`: of some records, in the end |
| `hook` | a webhook: `event_id`, `timestamp`, `signature`, `body`; `mood`: how it was answered (`ok`: well) |
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode


class Journal:
    """Written as things happen, so that it is whole whatever becomes of the round."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab", buffering=0)
        self._began = time.monotonic()

    def note(self, row: str, **fields: Any) -> None:
        at = round(time.monotonic() - self._began, 3)
        self._file.write(_encode({"row": row, "at": at} | fields) + b"\n")

    def close(self) -> None:
        self._file.close()
