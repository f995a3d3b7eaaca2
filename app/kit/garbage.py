"""How often a process looks for garbage in cycles."""

import gc
from typing import Final

_COLLECT_AT: Final = 20_000
"""Objects made and not yet gone."""


def collect_less() -> None:
    """An import or a call brings thousands of short-lived objects without a cycle among them: to look for one each 700
    of them, and through all modules as well, takes an eighth of a busy worker's time. For a process that has loaded
    what it needs."""
    gc.freeze()
    gc.set_threshold(_COLLECT_AT)
