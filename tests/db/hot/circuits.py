"""Queries of `app/destinations/circuits` and of pace in `app/deliveries`."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import Hot

HOT: Final[Hot] = {
    "has_deliveries": ("3, 5", {"deliveries_due", "deliveries_sending"}),
    "lacks_place": ("3, 5, 8", {"deliveries_due", "deliveries_sending"}),
    "read_circuits": ("3", {"circuit_changes_pkey"}),
    "count_openings": ("3", {"circuit_changes_time"}),
    "list_circuit_changes": ("3, 'd1', 20", {"circuit_changes_pkey"}),
}
