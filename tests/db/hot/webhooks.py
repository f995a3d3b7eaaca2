"""Queries of `app/webhooks/queries.sql`."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import Hot

HOT: Final[Hot] = {
    "close_messages": ("3, 5, 'why'", {"webhook_messages_pkey", "webhook_messages_due"}),
    "stray_endpoints": ("", {"webhook_messages_due"}),
    "list_messages": ("3, 5, 9223372036854775807, 101", {"webhook_messages_endpoint"}),
    "list_messages_in_state": ("3, 5, 9223372036854775807, 101, 'ok'", {"webhook_messages_state"}),
    "replay_message": ("3, 5, 2100", set()),  # two indexes serve it equally well
    "replay_messages": ("3, 5, 'dead'", {"webhook_messages_pkey", "webhook_messages_state"}),
    "due_endpoints": ("", {"webhook_messages_due"}),
    "claim_message": ("3, 5, '13 s', '25 s'", {"webhook_messages_pkey", "webhook_messages_due", "jobs_pkey"}),
    "record_attempt": ("3, 2100, 1, 'ok', '0 s', '{}', 50, now(), true, NULL, NULL, ''", {"webhook_messages_pkey"}),
}
