"""What a HubSpot answer that does not speak of single contacts means for the whole call.

Sources: HubSpot's pages on error handling and on usage guidelines (limits, 423, 429, 477).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from jobs.crm.exchange import Answer, retry_after
from jobs.crm.verdict import LIMIT_SECONDS, Judge, Wait

POLICY_SECONDS: Final = {"SECONDLY": 1.0, "TEN_SECONDLY_ROLLING": 10.0}
MIGRATION_SECONDS: Final = 10.0


class HubSpotJudge(Judge):
    """Judges the answers of one account, whose daily quota starts anew at midnight in `time_zone`."""

    vendor = "HubSpot"

    def __init__(self, token: str, id_property: str, time_zone: str, now: Callable[[], datetime]) -> None:
        super().__init__(token, now)
        self._zone = ZoneInfo(time_zone)
        self._id_property = id_property

    def is_setting(self, answer: Answer, body: Any) -> bool:
        """The key property is missing or not unique."""
        said = self.said(body)
        return "non-unique" in said or (f'"{self._id_property}" does not exist' in said)

    def wait(self, answer: Answer, body: Any) -> Wait | None:
        """477: the account is being moved."""
        if answer.status == 477:
            asked = retry_after(answer.headers, self.now())
            return Wait(seconds=MIGRATION_SECONDS if asked is None else asked)
        return super().wait(answer, body)

    def limit_seconds(self, body: Any) -> float:
        policy = str(body.get("policyName")) if isinstance(body, dict) else ""
        if policy != "DAILY":
            return POLICY_SECONDS.get(policy, LIMIT_SECONDS)
        now = self.now()
        tomorrow = now.astimezone(self._zone).date() + timedelta(days=1)
        midnight = datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=self._zone)
        return (midnight - now).total_seconds() + 1.0
