"""What a HubSpot answer that does not speak of single records means for the whole call.

Sources: HubSpot's pages on error handling and on usage guidelines (limits, 423, 429, 477). A refused property is
described twice over: `message` ends with a JSON list, `Property values were not valid: [{"isValid":false,"message":
"Property \\"plan\\" does not exist","error":"PROPERTY_DOESNT_EXIST","name":"plan"}]`, and newer endpoints have `errors`
with `code` and `context.propertyName`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from jobs.crm.answers import LIMIT_SECONDS, Judge, Wait, message, objects, rename_or_exclude
from jobs.crm.exchange import Answer
from jobs.crm.hubspot.fields import Fields
from jobs.crm.port import Authorizer, SentRecord

POLICY_SECONDS: Final = {"SECONDLY": 1.0, "TEN_SECONDLY_ROLLING": 10.0}
MIGRATION_SECONDS: Final = 10.0

_MISSING: Final = "PROPERTY_DOESNT_EXIST"
_READ_ONLY: Final = "READ_ONLY_VALUE"
_NOT_THERE: Final = re.compile(r"Property [\\'\"“]*([^\s\\'\"“”]+)[\\'\"”]* does(?: not|n't) exist", re.IGNORECASE)


class HubSpotJudge(Judge):
    """Judges the answers of one account, whose daily quota starts anew at midnight in `time_zone`."""

    vendor = "HubSpot"

    def __init__(self, authorizer: Authorizer, fields: Fields, time_zone: str, now: Callable[[], datetime]) -> None:
        super().__init__(authorizer, now)
        self._zone = ZoneInfo(time_zone)
        self._fields = fields

    def said(self, body: Any) -> str:
        """Its words, with the JSON list in them as the sentences that it holds."""
        if not isinstance(body, dict):
            return ""
        words = message(body)
        for head, details, tail in _embedded(words):
            inner = [str(d["message"]) for d in details if isinstance(d.get("message"), str)]
            if inner:
                words = f"{head}{'; '.join(dict.fromkeys(inner))}{tail}"
        return words

    def remedy(self, body: Any, records: Sequence[SentRecord]) -> str | None:
        """The key property is missing or not unique, or the account lacks a property that is sent."""
        if not isinstance(body, dict):
            return None
        key = self._fields.key
        lacking = dict(_lacking(body))
        said = message(body)
        if key in lacking or "non-unique" in said or (key in said and "not unique" in said):
            return (
                f'Create the {self._fields.noun} property "{key}" in HubSpot (single-line text, unique values), or '
                "name the one that holds your key (tranche destinations change NAME --option id_property=THEIRS)"
            )
        for name, code in lacking.items():
            ours = self._fields.source_of(name, records) or name
            do = "HubSpot does not allow writing it: give" if code == _READ_ONLY else "Create it in HubSpot, give"
            return rename_or_exclude(do, ours)
        return None

    def wait(self, answer: Answer, body: Any) -> Wait | None:
        """477: the account is being moved."""
        if answer.status == 477:
            asked = self.asked(answer)
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


def _lacking(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(property, code) of each that the account does not have, or lets nobody write."""
    said = message(body)
    details = [body, *objects(body.get("errors"))]
    for _, embedded, _ in _embedded(said):
        details += embedded
    for detail in details:
        code = next(
            (
                c
                for c in (detail.get("error"), detail.get("code"), detail.get("category"))
                if c in (_MISSING, _READ_ONLY)
            ),
            None,
        )
        if code is None:
            continue
        context = detail.get("context")
        named = context.get("propertyName") if isinstance(context, dict) else None
        found = [detail.get("name"), *(named if isinstance(named, list) else [named])]
        names = [name for name in found if isinstance(name, str) and name]
        yield from ((name, code) for name in names or _NOT_THERE.findall(str(detail.get("message"))))
    yield from ((name, _MISSING) for name in _NOT_THERE.findall(said))


def _embedded(words: str) -> Iterator[tuple[str, list[dict[str, Any]], str]]:
    """(before, objects, after) of the JSON list within a message, if there is one."""
    start, end = words.find("[{"), words.rfind("}]")
    if 0 <= start < end:
        try:
            found = msgspec.json.decode(words[start : end + 2])
        except (ValueError, RecursionError):
            return
        yield words[:start], list(objects(found)), words[end + 2 :]
