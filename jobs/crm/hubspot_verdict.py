"""What a HubSpot answer that does not speak of single contacts, or none at all, means for the whole call.

Sources: HubSpot's pages on error handling and on usage guidelines (limits, 423, 429, 477).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from app.domain.outcomes import EffectState, ErrorCode
from jobs.crm.exchange import Answer, NoAnswer, for_humans, retry_after
from jobs.crm.port import Health, Pause

REFUSALS: Final = frozenset({400, 409, 413, 414, 422})
"""Statuses that speak of what was sent, not of who sent it or where."""

POLICY_SECONDS: Final = {"SECONDLY": 1.0, "TEN_SECONDLY_ROLLING": 10.0}
UNKNOWN_POLICY_SECONDS: Final = 10.0
LOCK_SECONDS: Final = 2.0
MIGRATION_SECONDS: Final = 10.0
SHORTEST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 90_000.0
"""A day of 25 hours."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of all contacts of a call alike."""

    health: Health
    detail: str
    state: EffectState = EffectState.RETRY
    code: ErrorCode = ErrorCode.DESTINATION_UNAVAILABLE
    pause: Pause | None = None
    refused: bool = False
    """The batch as such was refused: with several contacts nobody knows which is guilty."""


class Judge:
    """Judges the answers of one account, whose daily quota starts anew at midnight in `time_zone`.

    Raises:
        ValueError: `time_zone` is no known IANA time zone.
    """

    def __init__(self, token: str, id_property: str, time_zone: object, now: Callable[[], datetime]) -> None:
        try:
            self._zone = ZoneInfo(str(time_zone))
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"time_zone is no known IANA time zone: {time_zone!r}") from error
        self._token = token
        self._id_property = id_property
        self._now = now

    def verdict(self, answer: Answer | NoAnswer) -> Verdict:
        """The meaning of everything but a 2xx that can be read."""
        if isinstance(answer, NoAnswer):
            detail = for_humans(f"no answer from HubSpot: {answer.detail}", self._token)
            return _unknown(detail) if answer.sent else Verdict(health=Health.CRM_FAULT, detail=detail)
        body = answer.json()
        said = message(body) if isinstance(body, dict) else answer.trouble
        detail = for_humans(f"HubSpot answered {answer.status}" + (f": {said}" if said else ""), self._token)
        status = answer.status
        if status < 300:
            return _unknown(for_humans(f"{detail}, with a body that cannot be used", self._token))
        if status in (423, 429, 477, 503):
            return self._wait(answer, body, detail)
        if status in REFUSALS and not self._is_setting(said):
            return Verdict(health=Health.WELL, detail=detail, refused=True)
        if status < 500 and status != 408:  # token, account, address or setting; a redirect is not followed
            return Verdict(health=Health.CONNECTION_FAULT, detail=detail)
        return _unknown(detail)  # a gateway may say this in front of a CRM that did the work

    def _is_setting(self, said: str) -> bool:
        """The key property is missing or not unique: that is no contact's fault."""
        return "non-unique" in said or (f'"{self._id_property}" does not exist' in said)

    def _wait(self, answer: Answer, body: Any, detail: str) -> Verdict:
        """423, 429, 477 (the account is being moved) and 503: nothing was done, come back later."""
        asked = retry_after(answer.headers, self._now())
        health, code = Health.WELL, ErrorCode.DESTINATION_UNAVAILABLE
        if answer.status == 503:
            health = Health.CRM_FAULT
        elif answer.status == 423:
            asked = max(asked or 0.0, LOCK_SECONDS)
        elif answer.status == 477:
            asked = MIGRATION_SECONDS if asked is None else asked
        else:
            code = ErrorCode.DESTINATION_RATE_LIMIT
            asked = self._quota_wait(body) if asked is None else asked
        pause = None if asked is None else Pause(min(max(asked, SHORTEST_PAUSE), LONGEST_PAUSE), detail)
        return Verdict(health=health, code=code, detail=detail, pause=pause)

    def _quota_wait(self, body: Any) -> float:
        policy = str(body.get("policyName")) if isinstance(body, dict) else ""
        if policy != "DAILY":
            return POLICY_SECONDS.get(policy, UNKNOWN_POLICY_SECONDS)
        now = self._now()
        tomorrow = now.astimezone(self._zone).date() + timedelta(days=1)
        midnight = datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=self._zone)
        return (midnight - now).total_seconds() + 1.0


def _unknown(detail: str) -> Verdict:
    return Verdict(
        health=Health.CRM_FAULT, detail=detail, state=EffectState.UNKNOWN, code=ErrorCode.OUTCOME_UNKNOWN
    )


def objects(value: object) -> Iterator[dict[str, Any]]:
    """The objects of what should be a list of them."""
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def message(body: Mapping[str, Any]) -> str:
    """The vendor's own words, with those of the nested errors where there are any."""
    words = [body.get("message"), *(error.get("message") for error in objects(body.get("errors")))]
    told = list(dict.fromkeys(word for word in words if isinstance(word, str) and word))
    return "; ".join(told) or str(body.get("category") or "")
