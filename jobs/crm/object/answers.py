"""What an object store's errors mean, by their codes ("Error responses" of the S3 API reference), and what mends
them."""

import html
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final

from msgspec.structs import asdict

from app.vocabulary.states import ErrorCode
from jobs.crm.answers import LIMIT_SECONDS, Judge, Verdict, Wait, unknown, with_remedy
from jobs.crm.exchange import Answer, NoAnswer
from jobs.crm.port import Authorizer, Health, SentRecord

_MOST: Final = 65_536
"""Bytes of an error that are looked at."""
_ELEMENT: Final = re.compile(r"<(Code|Message|Region|Endpoint|ServerTime)>([^<]{1,1000})</\1>")
_TOO_MANY: Final = frozenset({"SlowDown", "TooManyRequests", "RequestLimitExceeded", "ThrottlingException"})
_DAMAGED: Final = frozenset(
    {
        *("RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"),
        *("OperationAborted", "ConditionalRequestConflict"),
    }
)
"""Nothing was stored, for a reason that will pass."""
_TOO_LARGE: Final = frozenset({"EntityTooLarge", "MaxMessageLengthExceeded"})
_ELSEWHERE: Final = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "Redirect"}
)


class XmlAnswer(Answer, frozen=True, kw_only=True):
    """An error, whose body is no JSON. It is not parsed, only searched: so it has no entities to be expanded."""

    def json(self) -> dict[str, str]:
        """Its elements by name, as far as they are known here; `Region` may be in a header field."""
        text = self.body[:_MOST].decode(errors="replace")
        found = {name: html.unescape(value) for name, value in _ELEMENT.findall(text)}
        region = self.headers.get("x-amz-bucket-region", "")
        return ({"Region": region} if region else {}) | found


def read(answer: Answer | NoAnswer) -> Answer | NoAnswer:
    """With the error that it is."""
    return XmlAnswer(**asdict(answer)) if isinstance(answer, Answer) and not answer.well else answer


def is_stored(answer: Answer | NoAnswer) -> bool:
    """Whether an object store says that it has an object; a proxy's 200 has no `ETag`."""
    return isinstance(answer, Answer) and answer.well and not answer.trouble and bool(answer.headers.get("ETag"))


class ObjectJudge(Judge):
    """Judges the answers of one bucket. `place`: bucket and folder in words, as a policy has them."""

    vendor: ClassVar[str] = "the object store"

    def __init__(self, authorizer: Authorizer, now: Callable[[], datetime], place: str, region: str) -> None:
        super().__init__(authorizer, now)
        self._place = place
        self._region = region

    def said(self, body: Any) -> str:
        """Message and code."""
        if not isinstance(body, dict) or "Code" not in body:
            return ""
        code = body["Code"]
        words = f"{body.get('Message', '').rstrip('.')} ({code})".strip()
        if code == "RequestTimeTooSkewed":
            there = f", which says {body['ServerTime']}" if "ServerTime" in body else ""
            words += f": the clock of the worker differs from that of the store{there}; correct it"
        return words

    def is_setting(self, answer: Answer, body: Any) -> bool:
        """Whatever it does not take, it would not take of any record; only a size is a file's own."""
        return answer.status != 413 and _code(body) not in _TOO_LARGE

    def remedy(self, body: Any, records: Sequence[SentRecord]) -> str | None:
        """By the code."""
        code = _code(body)
        if code in _ELSEWHERE:
            region = body.get("Region")
            if region and region != self._region:
                return f"The bucket is in {region}: set the option region={region}, with a base URL of that region"
            place = f", which is {body['Endpoint']}" if "Endpoint" in body else ""
            return f"Set the region of the bucket (option region) and a base URL of that region{place}"
        if code.startswith("KMS."):
            return "Let the access key use the bucket's key, or choose another encryption (option encryption)"
        return {
            "NoSuchBucket": "Make the bucket, or name yours (option bucket)",
            "InvalidBucketName": "Name the bucket (option bucket), or let the base URL lead to it",
            "AccessDenied": f"Let the access key write there: s3:PutObject on arn:aws:s3:::{self._place}/*",
            "InvalidStorageClass": "Choose another storage class (option storage_class)",
            "NotImplemented": "Leave out what the store does not have (options storage_class and encryption)",
        }.get(code)

    def wait(self, answer: Answer, body: Any) -> Wait | None:
        """503 `SlowDown` is what others answer with 429."""
        if _code(body) in _TOO_MANY:
            asked = self.asked(answer)
            seconds = LIMIT_SECONDS if asked is None else asked
            return Wait(seconds=seconds, code=ErrorCode.DESTINATION_RATE_LIMIT)
        return super().wait(answer, body)

    def verdict(self, answer: Answer | NoAnswer, records: Sequence[SentRecord] = ()) -> Verdict:
        """See `jobs.crm.answers.Judge`."""
        if not isinstance(answer, Answer):
            return super().verdict(answer, records)
        if answer.well:
            trouble = answer.trouble or "without an ETag, so it may be somebody else's answer"
            return unknown(self.words(f"{self.vendor} answered {answer.status}: {trouble}"))
        body = answer.json()
        code, detail = _code(body), self.words(f"{self.vendor} answered {answer.status}: {self.said(body)}")
        if code in _DAMAGED:
            return Verdict(health=Health.CRM_FAULT, detail=detail)
        if code == "NotImplemented" and (remedy := self.remedy(body, records)) is not None:
            return Verdict(health=Health.SETUP_FAULT, detail=with_remedy(detail, remedy))
        return super().verdict(answer, records)


def _code(body: Any) -> str:
    return str(body.get("Code", "")) if isinstance(body, dict) else ""
