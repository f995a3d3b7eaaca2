"""What one can choose of a destination of the kind `http`: any service that takes records as JSON.

What a call looks like is a template (`app.destinations.templates`), and how its answer is read an expression
(`app.destinations.expressions`): both are data, and are checked when the destination is added.
"""

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from app.destinations.expressions import ExpressionError, compile_expression, is_expression
from app.destinations.options import MatchingOptions, Name
from app.destinations.templates import Node, Placeholder, TemplateError, Text, compile_template, compile_text

_PLACEHOLDER: Final = r"\{[^{}]{1,300}\}"
Path = Annotated[str, Meta(pattern=r"^(/([!$&-;=@-Z_a-z~%]|\{type\})*)?\Z", max_length=1000)]
"""Of a URL, appended to the base URL: empty, or beginning with a slash; no query. `{type}` is replaced with
the name of the type."""
TemplatePath = Annotated[str, Meta(pattern=rf"^(/([!$&-;=@-Z_a-z~%]|{_PLACEHOLDER})*)?\Z", max_length=1000)]
"""The same, with the placeholders of a template."""
FieldPath = Annotated[str, Meta(max_length=500)]
"""The name of a field, several names joined by dots for one within another, or a JMESPath expression."""
Texts = Annotated[dict[Name, Annotated[str, Meta(max_length=1000)]], Meta(max_length=50)]
Template = dict[str, Any] | list[Any] | str

_OF_RECORD: Final = frozenset({"id", "version", "deleted", "type", "remote_id", "fields", "attributes", "values"})
_OF_BODY: Final = frozenset({"records", "record", "ids", "remote_ids", "id", "remote_id", "type", "values"})
_OF_PATH: Final = _OF_RECORD - {"version", "deleted"}
_OF_QUERY: Final = _OF_PATH | {"ids", "remote_ids"}
_OF_LIST: Final = frozenset({"type", "values", "cursor"})
_OF_HEADERS: Final = frozenset({"type", "values"})
_ONE_RECORD: Final = frozenset({"id", "remote_id", "fields", "attributes"})
"""Placeholders that make a path or a query one for a single record."""
_TOKEN_HEADER: Final = re.compile(
    r"authorization|ocp-apim-subscription-key|(x-)?((api|auth|access)-?(key|token))"
    r"|x-(?!aws|amz|forwarded|proxy)(?!.*metadata)[a-z0-9-]+-(api-?key|token)",
    re.IGNORECASE | re.ASCII,
)
"""Headers that carry tokens and nothing else. A free choice could pose as a proxy, carry a session, or unlock a cloud's
metadata service (X-aws-ec2-metadata-token, Metadata-Flavor)."""
_HEADER_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,99}")
_HEADER_VALUE: Final = re.compile(r"[!-~]([ -~]*[!-~])?")
_OWN_HEADER: Final = re.compile(
    r"accept-encoding|accept-ranges|alt-.*|cf-.*|client-ip|connection|content-.*|cookie2?|date|expect|fastly-.*"
    r"|forwarded.*|host|http2-.*|idempotency-key|if-.*|keep-alive|metadata.*|.*-metadata.*|origin|proxy.*|range|referer"
    r"|sec-.*|te|trace.*|trailer|transfer-encoding|true-client-ip|upgrade.*|user-agent|via|warning"
    r"|x-(amz|aws|client|cluster|cookie|event-id|forwarded|google|host|http|identity|ms|original|proxy|real|remote"
    r"|request-id|rewrite|user)(-.*)?",
    re.IGNORECASE,
)
"""Headers that say who calls, or how: they are ours, a proxy's or a cloud's."""
_SECRET: Final = re.compile(r"auth|token|secret|password|passwd|credential|session|signature|(^|-)key$|api-?key", re.I)

_SECRET_PARAMETER: Final = re.compile(r"token|secret|passw|credential|signature|api[_-]?key", re.IGNORECASE)

Parsed = TypeVar("Parsed", Text, Node)


class Called(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How records are updated, deleted or read, where that differs from the ordinary call."""

    path: TemplatePath
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] | None = None
    query: Texts = msgspec.field(default_factory=dict)
    item: Template | None = None
    body: Template | None = None


class Reading(Called, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How records are read; `item` is what is read of one."""

    records: FieldPath = ""
    id: FieldPath | None = None
    remote_id: FieldPath | None = None
    missing: FieldPath = "missing"
    """A list of our keys that are certainly not there."""


class Listed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How all records are listed, a page at a time."""

    path: TemplatePath
    method: Literal["GET", "POST"] = "GET"
    query: Texts = msgspec.field(default_factory=dict)
    """What contains `{cursor}` is left out for the first page."""
    body: Template | None = None
    records: FieldPath | None = None
    """`None`: under the wrapper."""
    id: FieldPath | None = None
    remote_id: FieldPath | None = None
    next: FieldPath | None = None
    """The `{cursor}` of the next page; `None`: there is one page alone."""


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the end of work is awaited that a 202 only accepts."""

    path: TemplatePath
    id: FieldPath = "id"
    state: FieldPath = "status"
    done: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=20)] = (
        "done",
        "completed",
        "complete",
        "succeeded",
        "success",
        "finished",
    )
    failed: Annotated[tuple[Name, ...], Meta(max_length=20)] = ("failed", "error", "errored", "canceled", "cancelled")


class HttpOptions(MatchingOptions, frozen=True, kw_only=True):
    KIND = "http"

    batch_size: Annotated[int, Meta(ge=1, le=1_000)] | None = None
    preset: Name | None = None
    """options for one vendor, by the name of its preset; those that are given beside it take precedence"""
    path: TemplatePath = "/{type}"
    """where records are sent, appended to the base URL; a path without `{type}` is for contacts alone, unless the
    destination lists another type as its only one; `{id}` or another placeholder of a record: one record per call"""
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    """POST, PUT or PATCH"""
    query: Texts = msgspec.field(default_factory=dict)
    """query string of every write: name → text, which may contain placeholders"""
    headers: Texts = msgspec.field(default_factory=dict)
    """header fields of every call: name → text; never credentials, which are kept encrypted elsewhere"""
    values: Texts = msgspec.field(default_factory=dict)
    """texts of your own, such as the id of a list, that templates contain as `{values.NAME}`"""
    item: Template | None = None
    """template of one record; null: its fields side by side, as the options below say"""
    body: Template | None = None
    """template of the whole body, with `{records}`, or `{record}` for one record per call; null: the records under
    `wrapper`"""
    format: Literal["json", "ndjson"] = "json"
    """json, or a line for each record (a list as `item` is a line for each of its elements)"""
    content_type: (
        Annotated[str, Meta(pattern=r"^application/([a-z0-9.-]+\+)?(json|ndjson|x-ndjson)\Z", max_length=100)] | None
    ) = None
    """media type of the body, if it is not that of the format"""
    update: Called | None = None
    """path, method (PATCH), query, item and body for records whose id there is known, in calls of their own; null: as
    for any other"""
    delete: Called | None = None
    """path, method (DELETE), query, item and body to remove records; null: by `archive_path` or `deleted_field`"""
    read: Reading | None = None
    """path, method (GET), query and body to read records back, where its answer has the `records`, the `id` and the
    `remote_id` of each and the `missing` ids, and as `item` what it says of one; null: by `read_path`"""
    listing: Listed | None = None
    """path, method (GET), query and body to list all records, with the `{cursor}` of a page; where its answer has the
    `records` (under the wrapper), the `id` and the `remote_id` of each, and the cursor of the `next` page, such as the
    id of the last record; null: a verification does not find records that nobody knows here"""
    read_path: Path | None = None
    """where `POST {"ids":[…]}` returns the stored records; null: a lost answer cannot be settled by reading"""
    archive_path: Path | None = None
    """where `POST {"ids":[…]}` removes records; null: they are sent as deleted to `path`"""
    auth_header: Annotated[str, Meta(max_length=100)] = "Authorization"
    """header with the token: Authorization, Api-Key, X-Api-Key, X-Auth-Token, or a vendor's own like X-Acme-Api-Key
    and X-Acme-Token"""
    auth_scheme: Annotated[str, Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]*\Z", max_length=100)] = "Bearer"
    """word before the token, or empty"""
    wrapper: Name | None = "{type}"
    """key of the list of records, with dots for nested keys; null: the body is the list"""
    id_field: Name = "id"
    """field with our key"""
    version_field: Name | None = "version"
    """field with the version; null: it is not sent"""
    deleted_field: Name | None = "deleted"
    """field that is true for a record to be removed; null: only archive_path can remove"""
    attributes_field: Name | None = "attributes"
    """object with the attributes that `fields` does not name; null: they are placed beside the fields"""
    dots: Literal["keep", "nest"] = "keep"
    """whether a dot in a name of `fields` is part of it, or places the value in an object within: `custom.tier`"""
    nulls: Literal["send", "empty", "omit"] = "send"
    """whether a cleared field is sent as null, as an empty text, or left out like a field that was never named"""
    results: Literal["optional", "required", "failures", "echoed", "status", "ignored"] = "optional"
    """what a 2xx lists: results (optional or required), only failures, echoed records, or nothing of use (status: that
    of a call with one record is its result; ignored: only the status counts, 202 as well)"""
    results_field: FieldPath = "results"
    """where the results, failures or echoed records are in the answer; empty: the body is the list"""
    results_by: Literal["id", "position"] = "id"
    """whether item results name their record or have its position"""
    result_id: FieldPath = "id"
    """field of an item result: our key"""
    result_ok: FieldPath = "ok"
    """field of an item result: true or false, an HTTP status, or a word such as ok, failed, retry"""
    result_retry: FieldPath = "retry"
    """field of a failed item result: true if it is worth sending again"""
    result_error: FieldPath = "error"
    """field of an item result: the reason of the failure"""
    result_remote_id: FieldPath = "remote_id"
    """field of an item result or record: its id there"""
    result_created: FieldPath = "created"
    """field of an item result: whether the call created the record, as true or false, 201 or `created`"""
    task: Task | None = None
    """path to ask for the state of a task (`{task}` is its id), `id` and `state` in the answers, and the states that
    are `done` and `failed`; null: 202 is an unknown outcome"""
    repeatable: bool = False
    """a lost answer is sent again: a repetition changes nothing there, because the service upserts by our key, or does
    not repeat a call with a known Idempotency-Key"""
    idempotent: bool = False
    """older name of `repeatable`"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.taken())) < len(self.taken()):
            raise ValueError("id_field, version_field, deleted_field and attributes_field must differ")
        if self.wrapper is not None and not all(self.wrapper.split(".")):
            raise ValueError(f"wrapper: {self.wrapper!r} has an empty name; names are joined by single dots")
        if not _TOKEN_HEADER.fullmatch(self.auth_header):
            raise ValueError(
                f"auth_header cannot be {self.auth_header!r}: it is Authorization, Api-Key, X-Api-Key, X-Auth-Token, "
                "or a vendor's own like X-Acme-Api-Key and X-Acme-Token"
            )
        self._check_headers()
        self._check_expressions()
        self._check_templates()
        shaped = self.item is not None or self.update is not None or self.single
        if self.match_on and (shaped or is_expression(self.result_remote_id)):
            raise ValueError(
                "match_on: records are looked for in the default shape alone, without item, update, one record per "
                "call, or an expression as result_remote_id"
            )

    def taken(self) -> list[str]:
        if self.item is not None:
            return []  # the template says where everything goes
        own = (self.id_field, self.version_field, self.deleted_field, self.attributes_field)
        return [name for name in own if name is not None]

    @property
    def single(self) -> bool:
        """Whether a call has one record."""
        return self._is_single("", self.path, self.query, self.body)

    def _check_headers(self) -> None:
        for name in self.query:
            if _SECRET_PARAMETER.search(name):
                raise ValueError(
                    f"query: {name} would show a secret to whoever may list destinations; give it as token"
                )
        for name, text in self.headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"headers: {name!r} is not the name of a header field")
            if _SECRET.search(name) or name.casefold() == self.auth_header.casefold():
                raise ValueError(
                    f"headers: {name} would show a secret to whoever may list destinations; give it as the token, with "
                    "the name of its header as auth_header"
                )
            if _OWN_HEADER.fullmatch(name):
                raise ValueError(f"headers: {name} cannot be chosen; it is a matter of the connection")
            if not _HEADER_VALUE.fullmatch(text):
                raise ValueError(f"headers.{name}: it must be printable ASCII, without spaces around it")

    def _check_expressions(self) -> None:
        own = {name: getattr(self, name) for name in self.__struct_fields__ if name.startswith("result")}
        inner: tuple[tuple[str, Reading | Task | Listed | None, tuple[str, ...]], ...] = (
            ("read", self.read, ("records", "id", "remote_id", "missing")),
            ("task", self.task, ("id", "state")),
            ("listing", self.listing, ("records", "id", "remote_id", "next")),
        )
        own |= {f"{place}.{name}": getattr(of, name) for place, of, names in inner if of for name in names}
        for place, text in own.items():
            if text and is_expression(text):
                try:
                    compile_expression(text)
                except ExpressionError as error:
                    raise ValueError(f"{place}: {error}") from None

    def _check_templates(self) -> None:
        used = list(self._placeholders())
        for place, placeholder in used:
            if placeholder.root == "values" and placeholder.member not in self.values:
                raise ValueError(
                    f"{place}: {{{placeholder}}} is not among the values; give values.{placeholder.member}"
                )
        if self.body is not None and not any(p.root in ("records", "record") for at, p in used if at == "body"):
            raise ValueError("body: it contains neither {records} nor {record}, so no record would be sent")
        if any(at == "read.body" and p.root in ("records", "record") for at, p in used):
            raise ValueError("read.body: nothing is sent to be read; name records by {ids}, {remote_ids} or {id}")
        if self.single and (self.batch_size or 1) > 1:
            raise ValueError("batch_size: a call has one record, as path, query or body say; leave it out")
        if self.results == "status" and not self.single:
            raise ValueError("results: status is for calls with one record ({id} in the path, or {record} in the body)")
        if self.delete is not None and not any(_is_named(at, p) for at, p in used):
            raise ValueError("delete: nothing in its path, query or body says which records, so all might be removed")
        update = None if self.update is None or self.single else self.update.body
        if update is not None and not any(at == "update.body" and p.root == "records" for at, p in used):
            raise ValueError("update.body: it does not contain {records}, so no record would be sent")
        self._check_called()

    def _check_called(self) -> None:
        for place, called in (("update", self.update), ("delete", self.delete), ("read", self.read)):
            if called is None:
                continue
            if self._is_single(place, *_parts(called)) and not self.single:
                raise ValueError(
                    f"{place}: it is for one record, while a write has many: use "
                    f"{'{records}' if place == 'update' else '{ids}'}, or write one record per call"
                )
            if called.method == "GET" and (place != "read" or called.body is not None):
                raise ValueError(f"{place}.method: GET is for reading, and has no body")

    def _is_single(self, place: str, path: str, query: dict[str, str], body: Any) -> bool:
        dot = f"{place}." if place else ""
        texts = [read_text(f"{dot}path", path, _OF_PATH)]
        texts += [read_text(f"{dot}query.{name}", text, _OF_QUERY) for name, text in query.items()]
        if any(p.root in _ONE_RECORD for text in texts for p in text.placeholders()):
            return True
        return body is not None and any(
            p.root in ("record", *_ONE_RECORD) for p in read_template(f"{dot}body", body, _OF_BODY).placeholders()
        )

    def _placeholders(self) -> Iterator[tuple[str, Placeholder]]:
        """The placeholders of all templates, each with the option that it is in."""
        for place, text, roots in self._texts():
            for placeholder in read_text(place, text, roots).placeholders():
                if placeholder.root in ("fields", "attributes") and placeholder.member is None:
                    raise ValueError(f"{place}: {{{placeholder}}} is an object; name one, as {{{placeholder}.NAME}}")
                yield place, placeholder
        for place, template, roots in self._templates():
            for placeholder in read_template(place, template, roots).placeholders():
                yield place, placeholder

    def _texts(self) -> Iterator[tuple[str, str, frozenset[str]]]:
        yield "path", self.path, _OF_PATH
        yield from ((f"query.{name}", text, _OF_QUERY) for name, text in self.query.items())
        yield from ((f"headers.{name}", text, _OF_HEADERS) for name, text in self.headers.items())
        for purpose in ("update", "delete", "read"):
            called: Called | None = getattr(self, purpose)
            if called is not None:
                yield f"{purpose}.path", called.path, _OF_PATH
                yield from ((f"{purpose}.query.{name}", text, _OF_QUERY) for name, text in called.query.items())
        if self.listing is not None:
            yield "listing.path", self.listing.path, _OF_LIST - {"cursor"}
            yield from ((f"listing.query.{name}", text, _OF_LIST) for name, text in self.listing.query.items())
        if self.task is not None:
            yield "task.path", self.task.path, frozenset({"task", "type", "values"})

    def _templates(self) -> Iterator[tuple[str, Any, frozenset[str]]]:
        for purpose in ("", "update", "delete", "read"):
            of: Any = getattr(self, purpose) if purpose else self
            dot = f"{purpose}." if purpose else ""
            if of is not None and of.item is not None:
                yield f"{dot}item", of.item, _OF_RECORD
            if of is not None and of.body is not None:
                yield f"{dot}body", of.body, _OF_BODY
        if self.listing is not None and self.listing.body is not None:
            yield "listing.body", self.listing.body, _OF_LIST


def _is_named(place: str, placeholder: Placeholder) -> bool:
    """Whether a placeholder says which records a call removes."""
    roots = _ONE_RECORD | {"records", "record", "ids", "remote_ids"}
    return place.startswith(("delete.path", "delete.query", "delete.body")) and placeholder.root in roots


def _parts(called: Called) -> tuple[str, dict[str, str], Any]:
    return called.path, called.query, called.body


def read_text(place: str, text: str, roots: frozenset[str] = _OF_QUERY | _OF_LIST | {"task"}) -> Text:
    """A text with placeholders. Raises `ValueError`, with its place."""
    return _read(compile_text, place, text, roots)


def read_template(place: str, template: Any, roots: frozenset[str] = _OF_RECORD | _OF_BODY | _OF_LIST) -> Node:
    """Raises `ValueError`, with its place."""
    return _read(compile_template, place, template, roots)


def _read(parse: Callable[[Any, frozenset[str]], Parsed], place: str, value: Any, roots: frozenset[str]) -> Parsed:
    try:
        return parse(value, roots)
    except TemplateError as error:
        words = str(error)
        raise ValueError(
            f"{place}{words}" if words.startswith((".", "[")) else f"{place}: {words.lstrip(': ')}"
        ) from None
