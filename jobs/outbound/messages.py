"""What calls say of us, and what is read of their answers."""

import email.utils
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

USER_AGENT: Final = "tranche"
DETAIL_LENGTH: Final = 300
_LONG_SECRET: Final = 8
"""Characters of a secret that no word contains by chance."""


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that `Retry-After` asks for, as a number or a date (RFC 9110, 10.2.3), if it does."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.replace(".", "", 1).isdigit():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError):
        return None
    return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds())


def sanitize_message(text: str, *secrets: str) -> str:
    """One line of at most 300 characters that contains none of the `secrets`, whatever the CRM chose to echo."""
    shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    for secret in secrets:
        if len(secret) >= _LONG_SECRET:
            shown = shown.replace(secret, "***")
        elif secret:
            # Taken out of the middle of words, a short one would be shown by the gaps.
            shown = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", "***", shown)
    return shown if len(shown) <= DETAIL_LENGTH else shown[: DETAIL_LENGTH - 1] + "…"
