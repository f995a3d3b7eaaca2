"""The CRMs that contacts can be synced to; an adapter is one entry here."""

from __future__ import annotations

from typing import Final

from jobs.crm.hubspot import HubSpot
from jobs.crm.port import CrmFactory

ADAPTERS: Final[dict[str, CrmFactory]] = {"hubspot": HubSpot}
"""Kind of a destination → what makes its connection."""
