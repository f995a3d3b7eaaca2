"""The query of `app/monitoring/queries.sql`."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import Hot

HOT: Final[Hot] = {
    "read_stats": ("'{3,4}'", {"jobs_working", "deliveries_open", "webhook_messages_state"}),
    "read_queue": ("", {"deliveries_due"}),
}
