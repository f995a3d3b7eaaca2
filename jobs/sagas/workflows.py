"""The workflows that there are."""

from __future__ import annotations

from typing import Final

from jobs.sagas.consistency import CONSISTENCY
from jobs.sagas.undo import UNDO

WORKFLOWS: Final = (UNDO, CONSISTENCY)
