"""What of the document is the same for every service and tenant (`parts.yaml`): header fields, problems, webhooks."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

import msgspec

from app.api.openapi.schemas import ref
from app.http import problems
from app.http.headers import JSON
from app.vocabulary.states import EventType

_REQUEST_ID: Final = "0b9f6f2e-5a0d-4c9b-9a53-0c7d1f2f6a11"


class HeaderField(msgspec.Struct, frozen=True):
    name: str
    description: str
    schema: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})
    required: bool = False
    """Whether it is always there."""


class ProblemText(msgspec.Struct, frozen=True):
    description: str
    headers: list[str] = []


class EventText(msgspec.Struct, frozen=True):
    meaning: str
    data: dict[str, Any]


class Parts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    description: str
    tags: list[dict[str, str]]
    security_schemes: dict[str, Any]
    headers: dict[str, HeaderField]
    problems: dict[int, ProblemText]
    events: dict[EventType, EventText]
    event_parameters: list[dict[str, Any]]
    event_responses: dict[str, Any]


PARTS: Final = msgspec.yaml.decode(files(__package__).joinpath("parts.yaml").read_bytes(), type=Parts)


LIMITED: Final = ("RateLimitPolicy", "RateLimit", "RateLimitLimit", "RateLimitRemaining", "RateLimitReset")
"""Components of header fields of every answer that a rate limit may apply to."""


def make_headers() -> dict[str, Any]:
    return {
        name: {"description": one.description, "schema": one.schema} | ({"required": True} if one.required else {})
        for name, one in PARTS.headers.items()
    }


def refer_to_headers(*names: str) -> dict[str, Any]:
    """The header fields of an answer, by the names of their components."""
    return {PARTS.headers[name].name: {"$ref": f"#/components/headers/{name}"} for name in ("RequestId", *names)}


def make_problems() -> dict[str, Any]:
    return {f"Problem{status}": _describe_problem(status, text) for status, text in PARTS.problems.items()}


def _describe_problem(status: int, text: ProblemText) -> dict[str, Any]:
    examples = {
        code: {"value": msgspec.to_builtins(problems.describe(code, kind.title + ".", _REQUEST_ID))}
        for code, kind in problems.KINDS.items()
        if kind.status == status
    }
    return {
        "description": text.description,
        "headers": refer_to_headers(*text.headers, *LIMITED),
        "content": {problems.MEDIA_TYPE: {"schema": ref("Problem"), "examples": examples}},
    }


def make_webhooks(examples: Mapping[str, Any]) -> dict[str, Any]:
    """What endpoints are sent, as OpenAPI's own section of the document has it; `examples` of the data by event."""
    return {event.value: {"post": _describe_event(event, examples[event])} for event in EventType}


def _describe_event(event: EventType, data: Any) -> dict[str, Any]:
    text = PARTS.events[event]
    at = {"type": "string", "format": "date-time", "description": "When it happened."}
    schema = {
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {"type": {"const": event.value}, "timestamp": at, "data": text.data},
    }
    example = {"type": event.value, "timestamp": "2026-01-14T08:00:02.123456Z", "data": data}
    return {
        "tags": ["webhooks"],
        "operationId": "on" + "".join(word.capitalize() for word in event.value.split(".")),
        "summary": event.value,
        "description": f"{text.meaning} Sent at least once, in no promised order, to each endpoint that listens; "
        "signed as Standard Webhooks specifies.",
        "parameters": PARTS.event_parameters,
        "requestBody": {"required": True, "content": {JSON: {"schema": schema, "example": example}}},
        "security": [],
        "responses": PARTS.event_responses,
    }
