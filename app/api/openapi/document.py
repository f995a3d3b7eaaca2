"""The OpenAPI document, made of the operations as they are declared and of the structs that are really sent."""

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any, Final

import msgspec
from cachetools import LRUCache

from app.api.openapi import parts
from app.api.openapi.page import render_page
from app.api.openapi.schemas import TEMPLATE, make_schemas
from app.http import problems
from app.http.headers import CSV, JSON, NDJSON, XLSX
from app.http.operation import Answer, Header, Operation, Path, Text, for_types, members_of
from app.http.query_strings import describe_query
from app.records.service import RecordFacts
from app.release import read_version
from app.resources.declaration import Resource
from app.resources.types import BUILT_IN
from app.settings import Settings
from app.vocabulary.states import ErrorCode

EXAMPLES: Final = msgspec.json.decode(files(__package__).joinpath("examples.json").read_bytes())
"""By type; and by operation and status (or `request`), where those differ."""
_MOST_KEPT: Final = 100
"""Documents: most tenants have the types of the product alone."""


class Documents:
    """The document of this service in its three forms, each made when it is first asked for; with the types of the
    product, or those of a tenant."""

    def __init__(self, operations: Iterable[Operation], settings: Settings) -> None:
        self._operations = tuple(operations)
        self._settings = settings
        self._made: LRUCache[tuple[str, tuple[Resource, ...]], bytes] = LRUCache(_MOST_KEPT)

    def as_json(self, types: Iterable[Resource] = BUILT_IN.values()) -> bytes:
        return self._keep("json", types, lambda made: msgspec.json.format(msgspec.json.encode(made), indent=2))

    def as_yaml(self) -> bytes:
        return self._keep("yaml", BUILT_IN.values(), msgspec.yaml.encode)

    def as_page(self) -> bytes:
        return self._keep("page", BUILT_IN.values(), lambda made: render_page(made).encode())

    def _keep(self, form: str, types: Iterable[Resource], make: Any) -> bytes:
        key = (form, tuple(types))
        found: bytes | None = self._made.get(key)
        if found is None:
            found = self._made[key] = make(make_document(self._operations, self._settings, key[1]))
        return found


def make_document(
    operations: Iterable[Operation], settings: Settings, types: Iterable[Resource] = BUILT_IN.values()
) -> dict[str, Any]:
    """The document for a service with these limits, and these types of records."""
    types = tuple(types)
    operations = tuple(made for one in operations for made in for_types(one, types))
    queries = [one.query for one in operations if one.query]
    bodies = [problems.Problem, ErrorCode, *(kind for one in operations for kind in one.types)]
    schemas = make_schemas([*queries, *bodies])
    parameters = {query: describe_query(schemas[query.__name__]) for query in queries}
    for name in {query.__name__ for query in queries} - make_schemas(bodies).keys():
        del schemas[name]
    paths: dict[str, Any] = {}
    for one in operations:
        query = parameters[one.query] if one.query else []
        paths.setdefault(one.path, {})[one.method.lower()] = _describe(one, query, settings)
    for resource in types:
        _add_examples(paths, resource)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tranche",
            "summary": "A bulk import API with one result per item.",
            "description": parts.PARTS.description,
            "version": read_version(),
            "contact": {"name": "The Tranche authors"},
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"apiKey": []}],
        "tags": [
            *({"name": one.name, "description": f"Send {one.name}, and read their state."} for one in types),
            *parts.PARTS.tags,
        ],
        "paths": paths,
        "webhooks": parts.make_webhooks(EXAMPLES["events"]),
        "components": {
            "securitySchemes": parts.PARTS.security_schemes,
            "schemas": schemas,
            "headers": parts.make_headers(),
            "responses": parts.make_problems(),
        },
    }


def _describe(one: Operation, query: list[dict[str, Any]], settings: Settings) -> dict[str, Any]:
    description = " ".join(part for part in (_say(one.description, settings), one.access.remark) if part)
    parameters = [
        *(_describe_path(name, mark) for name, mark in one.parameters if isinstance(mark, Path)),
        *(_describe_header(mark, settings) for _, mark in one.parameters if isinstance(mark, Header)),
        *query,
    ]
    return {
        "tags": [one.tag],
        "operationId": one.id,
        "summary": one.summary,
        "description": description or one.summary + ".",
        **({"parameters": parameters} if parameters else {}),
        **_describe_body(one, settings),
        **({} if one.access.security is None else {"security": [dict(each) for each in one.access.security]}),
        "responses": _describe_answers(one),
    }


def _describe_path(name: str, mark: Path) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": mark.description,
        "schema": dict(mark.schema),
        "example": mark.example,
    }


def _describe_header(mark: Header, settings: Settings) -> dict[str, Any]:
    return {
        "name": mark.name,
        "in": "header",
        "required": mark.required,
        "description": _say(mark.description, settings),
        "schema": dict(mark.schema),
    }


def _describe_body(one: Operation, settings: Settings) -> dict[str, Any]:
    if one.body is None:
        return {}
    if isinstance(one.body, type):
        content = {JSON: _content(one.id, "request", JSON, _schema_ref(one.body))}
    else:
        content = {media: _content(one.id, "request", media, schema) for media, schema in one.body(settings).items()}
    return {"requestBody": {"required": one.body_required, "content": content}}


def _describe_answers(one: Operation) -> dict[str, Any]:
    limited = parts.LIMITED if one.access.limited else ()
    described = {str(answer.status): _describe_answer(one.id, answer, limited) for answer in one.answers}
    return described | {
        str(status): {"$ref": f"#/components/responses/Problem{status}"}
        for status in one.errors
        if str(status) not in described
    }


def _describe_answer(operation_id: str, answer: Answer, limited: Iterable[str]) -> dict[str, Any]:
    names = [
        *answer.headers,
        *limited,
        *(["CacheControl"] if answer.cache else []),
        *(["Link"] if answer.paged else []),
    ]
    schemas: dict[str, Any] = {JSON: _schema_ref(answer.type)} if answer.type else {}
    content = {
        media: _content(operation_id, str(answer.status), media, schema)
        for media, schema in (schemas | dict(answer.content)).items()
    }
    described = {"description": answer.description, "headers": parts.refer_to_headers(*names)}
    return described | ({"content": content} if content else {})


def _content(operation_id: str, where: str, media: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema with its example: the operation's own, or that of the type."""
    own = EXAMPLES["operations"].get(operation_id, {}).get(where, {}).get(media)
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if own is None:
        own = {"example": EXAMPLES["types"][name]} if name in EXAMPLES["types"] else {}
    return {"schema": dict(schema), **own}


def _add_examples(paths: dict[str, Any], resource: Resource) -> None:
    """Where the operations on records of a type have none of their own."""
    model, example = EXAMPLES["types"]["Contact"], resource.example
    fields = {name: example.get(name) for name in resource.names}
    free = {"attributes": example.get("attributes", {})} if resource.attributes else {}
    facts = {name: model[name] for name in RecordFacts.__struct_fields__}
    record = {"id": example.get("id", "1"), **fields, **free, **facts}
    line = msgspec.json.encode(example).decode() + "\n"
    cells = {name: str(value) for name, value in example.items() if name != "attributes"}
    made: dict[str, dict[str, Any]] = {
        "import": {
            JSON: {"items": [example]},
            NDJSON: line,
            CSV: f"{','.join(cells)}\r\n{','.join(cells.values())}\r\n",
        },
        "export": {NDJSON: msgspec.json.encode(record).decode() + "\n", CSV: f"{','.join(cells)}\r\n"},
        "read": {JSON: record | {"destinations": model["destinations"]}},
        "list": {JSON: {"records": [record], "next_cursor": None}},
    }
    for path, operations in paths.items():
        if not re.fullmatch(rf"/v1/{resource.name}(:\w+|/{{record_id}})?", path):
            continue
        for described in operations.values():
            if described["operationId"].startswith("erase"):
                continue  # its examples are those of every type
            contents = [described.get("requestBody", {}).get("content", {})]
            if not described["operationId"].startswith("import"):
                contents = [described["responses"]["200"]["content"]]
            for content in contents:
                for media, one in content.items():
                    if media != XLSX and "example" not in one and "examples" not in one:
                        one["example"] = made[re.split(r"(?=[A-Z])", described["operationId"])[0]][media]


def _schema_ref(kind: Any) -> dict[str, Any]:
    schemas, _ = msgspec.json.schema_components(members_of(kind), ref_template=TEMPLATE)
    return {"anyOf": list(schemas)} if len(schemas) > 1 else schemas[0]


def _say(text: Text, settings: Settings) -> str:
    return text if isinstance(text, str) else text(settings)
