"""The workflows that there are."""

from typing import Final

from jobs.sagas.consistency import CONSISTENCY
from jobs.sagas.erasure import ERASURE
from jobs.sagas.undo import UNDO

WORKFLOWS: Final = (UNDO, CONSISTENCY, ERASURE)
