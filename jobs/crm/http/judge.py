"""What an answer means for a whole call, of a service of which nothing is known but HTTP."""

from typing import Any

from app.vocabulary.states import ErrorCode
from jobs.crm.answers import Judge, Wait, message
from jobs.crm.exchange import Answer
from jobs.crm.http.rate_limits import is_used_up, seconds_to_reset
from jobs.crm.http.refusals import explain


class HttpJudge(Judge):
    """Judges the answers of one service."""

    vendor = "the destination"

    def said(self, body: Any) -> str:
        """Problem details (RFC 9457), `message`, or `error` in any of its usual shapes."""
        if not isinstance(body, dict):
            return ""
        error = body.get("error")
        inner = message(error) if isinstance(error, dict) else error
        words = [message(body), inner, body.get("title"), body.get("detail"), body.get("msg")]
        said = ": ".join(dict.fromkeys(word for word in words if isinstance(word, str) and word))
        return said or (explain(body["errors"]) if body.get("errors") else "")

    def asked(self, answer: Answer) -> float | None:
        """Seconds that its `Retry-After` asks for, or else the header fields of its rate limit."""
        asked = super().asked(answer)
        status, headers = answer.status, answer.headers
        if asked is None and (status == 429 or (status in (403, 503) and is_used_up(headers))):
            return seconds_to_reset(headers, self.now())
        return asked

    def wait(self, answer: Answer, body: Any) -> Wait | None:
        """409 with `Retry-After`: the first call with this Idempotency-Key is still running. 403 that says when to come
        back is what others answer with 429."""
        asked = self.asked(answer)
        if answer.status == 409 and asked is not None:
            return Wait(seconds=asked)
        if answer.status == 403 and asked is not None:
            return Wait(seconds=asked, code=ErrorCode.DESTINATION_RATE_LIMIT)
        return super().wait(answer, body)
