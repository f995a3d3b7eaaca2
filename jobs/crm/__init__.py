"""The CRMs that records can be synced to.

A kind is registered in `app.destinations.kinds.KINDS`; its folder here has its name, and `adapter.connect` in it makes
a connection. Other packages bring theirs by entry points (`app.destinations.adapters`).
"""

import importlib
from typing import Final

from app.destinations.kinds import INSTALLED, KINDS
from jobs.crm.port import CrmFactory

ADAPTERS: Final[dict[str, CrmFactory]] = {
    kind: INSTALLED[kind].connect
    if kind in INSTALLED
    else importlib.import_module(f"{__name__}.{kind}.adapter").connect
    for kind in KINDS
}
"""Kind of a destination → what makes its connection."""
