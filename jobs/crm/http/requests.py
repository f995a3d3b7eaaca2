"""The requests of one destination, as its options and their templates say, for records of one type."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec

from app.destinations.http_options import Called, HttpOptions, read_template, read_text
from app.destinations.templates import Absent, Node, Placeholder, Text
from app.resources.declaration import Resource
from jobs.crm.exchange import Body
from jobs.crm.mapping import FieldMap
from jobs.crm.port import SentRecord

Purpose = Literal["write", "update", "delete", "read"]

_METHODS: Final = {"update": "PATCH", "delete": "DELETE", "read": "GET"}
_REMOTE: Final = frozenset({"remote_id", "remote_ids"})
_LONGEST: Final = 8_000
"""Characters of a path with its query; more than that, servers need not take (RFC 9110, 4.1)."""
_NDJSON: Final = "application/x-ndjson"
_JSON: Final = "application/json"


class CannotRequestError(Exception):
    """There is no request for this record; the message says why."""


class TooLongError(CannotRequestError):
    """The URL of these records is too long; of fewer it may not be."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    path: str
    """With its query, encoded."""
    payload: Any = None
    """What the body says, before it is encoded."""
    body: Body | None = None

    @property
    def content(self) -> Any:
        """What is sent."""
        return self.payload if self.body is None else self.body


class _Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What the requests of one purpose look like."""

    method: str
    path: Text
    query: dict[str, Text]
    item: Node | None
    body: Node | None
    named: dict[str, frozenset[str]]
    """By root (`fields`, `attributes`), the members that the item names itself."""


class Requests:
    """Makes them."""

    def __init__(self, options: HttpOptions, resource: Resource) -> None:
        self._options = options
        self._type = resource.name
        self._named = options.fields_of(resource.name)
        # Within attributes_field no attribute has a name of its own.
        nested = options.item is None and options.attributes_field is not None
        name_of: Callable[[str], str | None] = (lambda _: None) if nested else str
        self.map = FieldMap(options, resource, key=options.id_field if options.item is None else "", name_of=name_of)
        write = Called(method=options.method, path=options.path, query=options.query, item=options.item)
        self._shapes = {"write": self._shape("write", write, options.body)}
        for purpose in ("update", "delete", "read"):
            called: Called | None = getattr(options, purpose)
            if called is not None:
                body = called.body
                if purpose == "update":
                    called = msgspec.structs.replace(called, item=called.item or options.item)
                    body = options.body if body is None else body
                self._shapes[purpose] = self._shape(purpose, called, body)
        placeholders = [placeholder for shape in self._shapes.values() for placeholder in _placeholders(shape)]
        roots = {placeholder.root for placeholder in placeholders}
        named = {p.member for p in placeholders if p.root == "fields" and p.member}
        self.strange_fields = sorted(named.difference(resource.names))
        """Fields that templates name and this type does not have."""
        self._by_remote_id = {
            purpose for purpose, shape in self._shapes.items() if not _REMOTE.isdisjoint(_roots(shape))
        }
        self.uses_remote_id = not roots.isdisjoint(_REMOTE)
        self.marks_deleted = options.deleted_field is not None if options.item is None else "deleted" in roots
        """A write can say that a record is to be removed."""
        self._task = None if options.task is None else read_text("task.path", options.task.path)
        self._headers = {name: read_text(name, text) for name, text in options.headers.items()}
        self._media_type = options.content_type or (_NDJSON if options.format == "ndjson" else _JSON)

    def has(self, purpose: Purpose) -> bool:
        return purpose in self._shapes

    def needs_remote_id(self, purpose: Purpose) -> bool:
        """Whether calls of this purpose name records by their ids there."""
        return purpose in self._by_remote_id

    def headers(self) -> dict[str, str]:
        """The fixed header fields."""
        return {name: text.write(self._of_call) for name, text in self._headers.items()}

    def task_path(self, task_id: str) -> str:
        """Where the state of a task is asked for. Raises `ValueError`: there are no tasks."""
        if self._task is None:
            raise ValueError("there is no task")
        return self._task.write(lambda p: task_id if p.root == "task" else self._of_call(p), encoded=True)

    def make(self, purpose: Purpose, records: list[SentRecord]) -> Request:
        """Raises `CannotRequestError`: a value that its path or query needs is not there, or cannot be in one; and
        `TooLongError`."""
        shape = self._shapes[purpose]
        values = self._of_records(records)
        path = "".join(self._part_of_path(part, values) for part in shape.path.parts)
        query = "&".join(
            f"{quote(name, safe='')}={quote(_write(text, values), safe='')}" for name, text in shape.query.items()
        )
        if query:
            path = f"{path}?{query}"
        if len(path) > _LONGEST:
            raise TooLongError(f"the address of its call has {len(path)} characters, and at most {_LONGEST} are sent")
        payload = self._payload(purpose, shape, records, values)
        return Request(
            method=shape.method,
            path=path,
            payload=payload,
            body=None if payload is None or shape.method == "GET" else self._encoded(payload),
        )

    def page(self, cursor: str | None) -> Request:
        """A page of all records. Raises `ValueError`: no option says how they are listed."""
        listed = self._options.listing
        if listed is None:
            raise ValueError("there is no listing")

        def value(placeholder: Placeholder) -> Any:
            if placeholder.root == "cursor":
                return msgspec.UNSET if cursor is None else cursor
            return self._of_call(placeholder)

        query = []
        for name, text in listed.query.items():
            with suppress(Absent):
                query.append(f"{quote(name, safe='')}={quote(read_text(name, text).write(value), safe='')}")
        path = read_text("listing.path", listed.path).write(value, encoded=True)
        payload = None
        if listed.body is not None:
            payload, _ = read_template("listing.body", listed.body).render(value)
        return Request(method=listed.method, path=f"{path}?{'&'.join(query)}" if query else path, payload=payload)

    def item(self, record: SentRecord, purpose: Purpose = "write") -> Any:
        """One record, as a call of this purpose has it."""
        shape = self._shapes[purpose]
        if shape.item is None:
            return self._plain(record)
        rendered, _ = shape.item.render(self._of_record(record, shape))
        return rendered

    def compared(self, record: SentRecord) -> Any:
        """One record, as reading it shows it: what `read.item` says, else what was written."""
        read = self._shapes.get("read")
        return self.item(record, "read" if read is not None and read.item is not None else "write")

    def fields(self, record: SentRecord) -> dict[str, Any]:
        """Fields and attributes; those attributes that `fields` does not name are in an object of their own."""
        values = self._without_cleared(self.map.sources(record))
        if self._options.attributes_field is not None:
            rest = record.attributes
            if self._named:
                rest = {name: value for name, value in rest.items() if name not in self._named}
            rest = self._without_cleared(rest)
            if rest:
                values[self._options.attributes_field] = rest
        for field in record.restored:
            if len(field.path) > 1 and (field.value is not None or self._options.nulls == "send"):
                values.setdefault(field.path[0], {})[field.path[1]] = field.value
        return self._nested(values)

    def _shape(self, purpose: str, called: Called, body: Any) -> _Shape:
        item = None if called.item is None else read_template(f"{purpose}.item", called.item)
        used = [] if item is None else list(item.placeholders())
        return _Shape(
            method=called.method or _METHODS[purpose],
            path=read_text(f"{purpose}.path", called.path),
            query={name: read_text(f"{purpose}.query.{name}", text) for name, text in called.query.items()},
            item=item,
            body=None if body is None else read_template(f"{purpose}.body", body),
            named={
                root: frozenset(p.member for p in used if p.root == root and p.member is not None)
                for root in ("fields", "attributes")
            },
        )

    def _payload(self, purpose: Purpose, shape: _Shape, records: list[SentRecord], values: Any) -> Any:
        if shape.body is None and purpose in ("delete", "read"):
            return None
        rendered = [self.item(record, purpose) for record in records] if purpose != "read" else []
        if shape.body is not None:

            def of_body(placeholder: Placeholder) -> Any:
                if placeholder.root == "records":
                    return rendered
                return rendered[0] if placeholder.root == "record" else values(placeholder)

            payload, _ = shape.body.render(of_body)
            return payload
        wrapper = self._options.wrapper if self._options.format == "json" else None
        payload = rendered
        for name in reversed(wrapper.split(".") if wrapper is not None else ()):
            payload = {name: payload}
        return payload

    def _encoded(self, payload: Any) -> Body | None:
        """`None`: it is ordinary JSON."""
        if self._options.format == "json":
            ordinary = self._media_type == _JSON
            return None if ordinary else Body(msgspec.json.encode(payload), self._media_type)
        lines = []
        for row in payload if isinstance(payload, list) else [payload]:
            lines += [msgspec.json.encode(part) for part in (row if isinstance(row, list) else [row])]
        return Body(b"\n".join(lines) + b"\n", self._media_type)

    def _part_of_path(self, part: str | Placeholder, values: Callable[[Placeholder], Any]) -> str:
        if isinstance(part, str):
            return part
        text = _write(Text((part,)), values)
        if text in ("", ".", ".."):  # it would address something else
            raise CannotRequestError(f"its {part} is {text!r}, which cannot be a part of a path")
        return quote(text, safe="")

    def _plain(self, record: SentRecord) -> dict[str, Any]:
        options = self._options
        if record.released:
            return {options.id_field: None, **self._theirs(record)} | self.fields(record)
        item: dict[str, Any] = {options.id_field: record.record_id}
        if record.adopted:
            item |= self._theirs(record)
        if options.version_field is not None:
            item[options.version_field] = record.version
        if options.deleted_field is not None:
            item[options.deleted_field] = record.deleted
        return item if record.deleted else item | self.fields(record)

    def _theirs(self, record: SentRecord) -> dict[str, Any]:
        """The id of its record there, as an item has it."""
        value: Any = record.remote_id
        for name in reversed(self._options.result_remote_id.split(".")):
            value = {name: value}
        return dict(value)

    def _of_call(self, placeholder: Placeholder) -> Any:
        """What is the same for all records."""
        return self._options.values[str(placeholder.member)] if placeholder.root == "values" else self._type

    def _of_records(self, records: list[SentRecord]) -> Callable[[Placeholder], Any]:
        """Values in a path, a query or a body."""
        shape = self._shapes["write"]
        of_one = self._of_record(records[0], msgspec.structs.replace(shape, named={})) if records else self._of_call

        def value(placeholder: Placeholder) -> Any:
            match placeholder.root:
                case "ids":
                    return [record.record_id for record in records]
                case "remote_ids":
                    return [record.remote_id for record in records if record.remote_id] or msgspec.UNSET
            return of_one(placeholder)

        return value

    def _of_record(self, record: SentRecord, shape: _Shape) -> Callable[[Placeholder], Any]:
        def value(placeholder: Placeholder) -> Any:
            match placeholder.root:
                case "id":
                    return record.record_id
                case "remote_id":
                    return record.remote_id or msgspec.UNSET
                case "version" | "deleted":
                    return getattr(record, placeholder.root)
                case "fields" | "attributes":
                    return self._values_of(record, placeholder, shape.named.get(placeholder.root, frozenset()))
            return self._of_call(placeholder)

        return value

    def _values_of(self, record: SentRecord, placeholder: Placeholder, named: frozenset[str]) -> Any:
        own: Mapping[str, Any] = getattr(record, placeholder.root)
        if placeholder.member is None:
            of = self.map.fields if placeholder.root == "fields" else self.map.attributes
            return self._nested(self._without_cleared(of(record, without=named))) or msgspec.UNSET
        if self.map.excludes(placeholder.member):
            return msgspec.UNSET
        return self._without_cleared({"": own.get(placeholder.member, msgspec.UNSET)}).get("", msgspec.UNSET)

    def _nested(self, values: dict[str, Any]) -> dict[str, Any]:
        """With objects for the dots of names, where these mean nesting."""
        if self._options.dots == "keep":
            return values
        nested: dict[str, Any] = {}
        for name, value in values.items():
            *outer, last = name.split(".")
            place = nested
            for step in outer:
                inner = place.setdefault(step, {})
                if not isinstance(inner, dict):
                    inner = place[step] = {}
                place = inner
            place[last] = value
        return nested

    def _without_cleared(self, values: dict[str, Any]) -> dict[str, Any]:
        """Without what was cleared, or with an empty text for it, where the service does not take nulls."""
        if self._options.nulls == "send":
            return values
        if self._options.nulls == "empty":
            return {name: "" if value is None else value for name, value in values.items()}
        return {name: value for name, value in values.items() if value is not None}


def _placeholders(shape: _Shape) -> Iterator[Placeholder]:
    for text in (shape.path, *shape.query.values(), shape.item, shape.body):
        if text is not None:
            yield from text.placeholders()


def _roots(shape: _Shape) -> set[str]:
    return {placeholder.root for placeholder in _placeholders(shape)}


def _write(text: Text, values: Callable[[Placeholder], Any]) -> str:
    try:
        return text.write(values)
    except Absent as absent:
        raise CannotRequestError(f"it has no {absent}, which the address of the call contains") from None
