"""An endpoint, declared once: its routing, authorization, parsing and OpenAPI description come from one decorator.

What a handler takes by its annotations is what it is given, and what is documented:

- `query: Struct` — the query string, see `app.http.query_strings`; without it there are no parameters;
- `body: Struct` — a small JSON body; `body: Struct | None`: one that may be left out;
- `Annotated[T, Path(…)]`, `Annotated[T, Header(…)]` — a part of the path or a header field;
- `connection: Connection` — to the database, for as long as the handler runs;
- `media_type: str` — the one that was negotiated; `Principal` — who calls;
- `Request`, `Fields`, `Exchange` — of the request;
- any other type — the one object of this type in the process, see `app.http.dependencies`.

The first line of its docstring is the summary, the rest the description, its name the operation's id. It returns the
struct to be sent, a `Reply` around it, None (204), or a response of Litestar's; a page gets its `Link`. All of
this is compiled when the module is imported: a request pays for no reflection.
"""

import functools
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints
from urllib.parse import unquote_to_bytes

import msgspec
from litestar import Request, delete, get, patch, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from app.errors import DatabaseUnavailable, NotFound
from app.http.body.json import LIMIT, read_json
from app.http.call import Call as Call
from app.http.cursors import link_next
from app.http.headers import JSON, KEY_SCHEMA, Fields, choose_type, read_key
from app.http.idempotency.requests import KeyedRequest, StoredAnswer, fingerprint, run_once
from app.http.principal import Principal
from app.http.query_strings import compile_query
from app.http.rate_limits import RequestLimits
from app.http.reads import Fallback as Fallback
from app.http.reads import Read, Reads
from app.http.reply import Reply as Reply
from app.http.request_context import Exchange
from app.kit.notifier import Notifier
from app.kit.postgres.database import Database
from app.kit.postgres.fair_connections import SERVICE
from app.resources.declaration import Resource
from app.settings import Settings

Text = str | Callable[[Settings], str]
"""Words of the document; those about a limit depend on how the service is set up."""
_ROUTES: Final[dict[str, Callable[..., Any]]] = {"GET": get, "POST": post, "PUT": put, "PATCH": patch, "DELETE": delete}
_WITH_RESULT: Final = frozenset({200, 201, 202, 207})
_encode: Final = msgspec.json.Encoder().encode


Bind = Callable[[Call], Any]


class Access(ABC):
    """Who may call an operation."""

    remark: str = ""
    """A sentence about it, for the description."""
    security: Sequence[Mapping[str, Sequence[str]]] | None = None
    """OpenAPI's security requirements; None: an API key, as everywhere."""
    errors: tuple[int, ...] = (401, 403, 429, 503)
    """Statuses of those who may not."""

    @property
    def limited(self) -> bool:
        """Whether a request costs its key one of its rate limit."""
        return 429 in self.errors

    @abstractmethod
    async def admit(self, call: Call) -> Principal | None:
        """Who calls; None: it does not matter. Raises `Unauthorized`, `Forbidden`: it may not."""

    async def recall(self, call: Call) -> Principal | None:
        """The same while the primary is away, for reads alone: by a replica, or as it was found out lately.
        Raises also `DatabaseUnavailable`: it was not."""
        raise DatabaseUnavailable(retry_after=5.0)


class _Everybody(Access):
    security = ()
    errors = ()

    async def admit(self, call: Call) -> None:
        return None


EVERYBODY: Final = _Everybody()


@dataclass(frozen=True, kw_only=True)
class Path:
    """A part of the path, decoded; `parse` raises `NotFound` where it can name nothing."""

    description: str
    schema: Mapping[str, Any]
    example: str | int
    parse: Callable[[str], Any] = str
    rest: bool = False
    """All that is left of the path, slashes too."""


@dataclass(frozen=True, kw_only=True)
class Header:
    name: str
    description: Text
    read: Callable[[Call], Any]
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    required: bool = False


@dataclass(frozen=True)
class Answer:
    """One way in which an operation ends well."""

    description: str
    status: int = 200
    type: Any = None
    """A struct or a union of them, or a `PerType`; None: what the handler returns."""
    headers: tuple[str, ...] = field(default=(), kw_only=True)
    """Names among the `headers` of `app.api.openapi.parts`."""
    cache: str | None = field(default=None, kw_only=True)
    """`Cache-Control` of the answer, if it is not that of all others."""
    content: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, kw_only=True)
    """Schemas by media type, of what is no struct."""

    @property
    def paged(self) -> bool:
        """It is one page of a list."""
        return "next_cursor" in getattr(self.type, "__struct_fields__", ())


@dataclass(frozen=True)
class PerType:
    """What goes over the wire, where it is another struct for each type of record."""

    make: Callable[[Resource], Any]


def for_types(one: "Operation", types: Iterable[Resource]) -> "list[Operation]":
    """An operation on records as it is for each type; any other one as it is."""
    return [_for_type(one, resource) for resource in types] if _TYPE in one.path else [one]


def _for_type(one: "Operation", resource: Resource) -> "Operation":
    def made(kind: Any) -> Any:
        return kind.make(resource) if isinstance(kind, PerType) else kind

    def worded(text: str) -> str:
        return re.sub(r"\brecord\b", resource.singular, re.sub(r"\brecords\b", resource.name, text))

    body, description = one.body, one.description
    several = "".join(word.capitalize() for word in re.split(r"[_-]", resource.name))
    return replace(
        one,
        id=one.id.replace("Records", several).replace("Record", resource.title),
        path=one.path.replace(_TYPE, resource.name),
        tag=resource.name,
        summary=worded(one.summary.replace("Records", "records")).capitalize(),
        description=worded(description) if isinstance(description, str) else description,
        answers=tuple(replace(answer, type=made(answer.type)) for answer in one.answers),
        parameters=tuple((name, mark) for name, mark in one.parameters if name != "type"),
        body=(lambda settings: body(settings, resource)) if callable(body) and not isinstance(body, type) else body,
        types=tuple(made(kind) for kind in one.types),
    )


_TYPE: Final = "{type}"


@dataclass(frozen=True, kw_only=True)
class Operation:
    id: str
    method: str
    path: str
    tag: str
    summary: str
    description: Text
    access: Access
    answers: tuple[Answer, ...]
    errors: tuple[int, ...]
    query: type[msgspec.Struct] | None
    parameters: tuple[tuple[str, Path | Header], ...]
    body: Any
    """A struct, or a function of the settings (and of the type of record, where the path has one) that makes OpenAPI's
    requestBody."""
    body_required: bool
    types: tuple[Any, ...]
    """Whatever goes over the wire."""
    handle: Callable[[Request[Any, Any, Any]], Awaitable[ASGIResponse]]
    route: HTTPRouteHandler


class _NoParameters(msgspec.Struct, frozen=True):
    pass


def operation(
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"],
    path: str,
    *,
    tag: str,
    access: Access,
    answers: Answer | tuple[Answer, ...],
    errors: tuple[int, ...] = (),
    description: Callable[[Settings], str] | None = None,
    offers: tuple[str, ...] = (JSON,),
    any_query: bool = False,
    request_body: Callable[..., dict[str, Any]] | None = None,
    types: tuple[Any, ...] = (),
    instead: Callable[[Request[Any, Any, Any]], Operation | None] | None = None,
    keyed: bool = False,
    body_limit: Callable[[Settings], int] = lambda _: LIMIT,
    fallback: Fallback | None = None,
) -> Callable[[Callable[..., Awaitable[Any]]], Operation]:
    """Declare the operation that the decorated function handles.

    `errors`: statuses beyond those that follow from the declaration: 400, 406, 404 of a path with a name in it, those
    of `access` and of a body. `description`: where the docstring cannot say it, because it depends on the settings.
    `offers`: media types to choose from by `Accept`; none: it is not looked at. `any_query`: the query is nobody's
    business. `request_body`: of a handler that reads its body itself. `types`: of the wire, where no answer or body
    names them. `instead`: the operation that this request really is for, where the router cannot distinguish them.
    `keyed`: it takes an Idempotency-Key as an option, under which it is done once (`app.http.idempotency`).
    `body_limit`: bytes of the body.
    `fallback`: how it is answered while PostgreSQL is away; without it, not at all.
    """

    def declare(function: Callable[..., Awaitable[Any]]) -> Operation:
        summary, _, more = inspect.cleandoc(function.__doc__ or "").partition("\n\n")
        hints = get_type_hints(function, include_extras=True)
        result = _find_result(hints.pop("return"))
        shown = _list_answers(answers, result, keyed=keyed, fallback=fallback)
        binds, parameters = _compile(hints, path, keyed=keyed)
        body = hints.get("body")
        read_query = None if any_query else compile_query(hints.get("query", _NoParameters))

        gather = _make_gather(
            binds, offers, read_query, wants_query="query" in hints, body=body, access=access, body_limit=body_limit
        )
        execute = _make_execute(function, shown, wants_connection="connection" in hints)
        name = re.sub(r"_(\w)", lambda found: found[1].upper(), function.__name__)
        read = (
            None
            if fallback is None
            else Read(
                id=name,
                fallback=fallback,
                places=tuple(argument for argument, mark in parameters if isinstance(mark, Path)),
                admit=access.admit,
                recall=access.recall,
                bind=gather,
                execute=execute,
            )
        )

        async def handle(request: Request[Any, Any, Any]) -> ASGIResponse:
            if instead is not None and (other := instead(request)) is not None:
                request.scope["path_template"] = other.path
                return await other.handle(request)
            call = Call(request)
            if read is not None:
                return _send(await call.resources[Reads].serve(call, read))
            call.principal = await access.admit(call)
            arguments = await gather(call)
            if keyed and (key := _OPTIONAL_KEY.read(call)) is not None:
                return await _answer_once(call, f"{method} {path}", key, arguments, execute)
            return _send(await execute(call, arguments))

        handle.__name__ = handle.__qualname__ = function.__name__
        handle.__module__ = __name__
        return Operation(
            id=name,
            method=method,
            path=path,
            tag=tag,
            summary=" ".join(summary.split()).removesuffix("."),
            description=description or " ".join(more.split()),
            access=access,
            answers=shown,
            errors=_list_errors(
                *errors,
                keyed=keyed,
                access=access,
                path=path,
                offers=offers,
                any_query=any_query,
                body=body or request_body,
            ),
            query=hints.get("query"),
            parameters=parameters,
            body=request_body or (_types_of(body)[0] if body else None),
            body_required=NoneType not in get_args(body),
            types=(*(each for one in shown for each in members_of(one.type)), *_types_of(body), *types),
            handle=handle,
            route=_ROUTES[method](_route_path(path, parameters), status_code=200)(handle),
        )

    return declare


def respond(
    body: bytes, status: int = 200, *, headers: dict[str, str] | None = None, media_type: str = JSON
) -> ASGIResponse:
    return ASGIResponse(body=body, status_code=status, headers=headers, media_type=media_type)


def _types_of(body: Any) -> list[Any]:
    """The struct of a body, without the None of one that may be left out."""
    return [one for one in (get_args(body) or (body,)) if one not in (None, NoneType)]


def _make_gather(
    binds: tuple[tuple[str, Bind], ...],
    offers: tuple[str, ...],
    read_query: Callable[[Any], Any] | None,
    *,
    wants_query: bool,
    body: Any,
    access: Access,
    body_limit: Callable[[Settings], int],
) -> Callable[[Call], Awaitable[dict[str, Any]]]:
    """What charges a request to its rate limits, and makes the arguments of a handler, all but the connection."""

    async def gather(call: Call) -> dict[str, Any]:
        # What is read a second time, because a connection was lost, is still one request.
        if call.principal is not None and access.limited and not call.exchange.limits:
            await call.resources[RequestLimits].admit(call.exchange, call.principal)
        if offers:
            call.media_type = choose_type(call.fields, offers)
        arguments: dict[str, Any] = {}
        if read_query is not None:
            query = read_query(call.request.scope)
            if wants_query:
                arguments["query"] = query
        for name, bind in binds:
            arguments[name] = bind(call)
        if body is not None:
            optional = NoneType in get_args(body)
            arguments["body"] = await read_json(
                call.request,
                call.resources,
                call.fields,
                _types_of(body)[0],
                optional=optional,
                limit=body_limit(call.resources[Settings]),
            )
        return arguments

    return gather


def _make_execute(
    function: Callable[..., Awaitable[Any]], answers: tuple[Answer, ...], *, wants_connection: bool
) -> Callable[[Call, dict[str, Any]], Awaitable[Reply[bytes] | ASGIResponse]]:
    """What calls a handler, and completes its answer."""
    caches = {one.status: {"Cache-Control": one.cache} for one in answers if one.cache}
    first, links = answers[0].status, answers[0].paged

    async def execute(call: Call, arguments: dict[str, Any]) -> Reply[bytes] | ASGIResponse:
        if wants_connection:
            async with call.resources[Database].connection() as connection:
                result = await function(**arguments, connection=connection)
        else:
            result = await function(**arguments)
        if links and not isinstance(result, ASGIResponse | Reply):
            result = Reply(result, headers=link_next(call.request.scope, result.next_cursor))
        return _complete(result, first, caches)

    return execute


def _complete(result: Any, status: int, caches: Mapping[int, dict[str, str]]) -> Reply[bytes] | ASGIResponse:
    """With its bytes and all its header fields."""
    if isinstance(result, ASGIResponse):
        return result
    headers: dict[str, str] = {}
    if type(result) is Reply:
        status, headers, result = result.status, result.headers or {}, result.value
    elif result is None:
        status = 204
    body = result if isinstance(result, bytes) else b"" if result is None else _encode(result)
    return Reply(body, status, caches.get(status, {}) | headers)


def _send(answer: Reply[bytes] | ASGIResponse) -> ASGIResponse:
    if isinstance(answer, ASGIResponse):
        return answer
    return respond(b"" if answer.status == 304 else answer.value, answer.status, headers=answer.headers)


def _read_optional_key(call: Call) -> str | None:
    """From here on every answer echoes it."""
    if call.fields.one("idempotency-key") is None:
        return None
    key, call.exchange.idempotency_key = read_key(call.fields)
    return key


_OPTIONAL_KEY: Final = Header(
    name="Idempotency-Key",
    description=lambda settings: (
        "Identifies this request, so that sending it twice does its work once: for "
        f"{settings.idempotency_retention / 3600:g} hours the same request gets the first answer again."
    ),
    read=_read_optional_key,
    schema=KEY_SCHEMA,
)
_KEYED: Final = ("MaybeIdempotencyKey", "IdempotencyReplayed")


async def _answer_once(
    call: Call,
    route: str,
    key: str,
    arguments: dict[str, Any],
    execute: Callable[[Call, dict[str, Any]], Awaitable[Reply[bytes] | ASGIResponse]],
) -> ASGIResponse:
    """The answer of the handler, or the one that was given under this key before."""

    async def work() -> StoredAnswer:
        done = await execute(call, arguments)
        assert not isinstance(done, ASGIResponse)
        return StoredAnswer(done.headers or {}, done.value.decode(), done.status)

    exchange, body = call.exchange, arguments.get("body")
    scope = call.request.scope
    request = KeyedRequest(
        SERVICE.tenant_id if call.principal is None else call.principal.tenant_id,
        route,
        key,
        fingerprint(exchange.path.encode(), scope["query_string"], b"" if body is None else _encode(body)),
    )
    resources = call.resources
    answer, again = await run_once(resources[Database], resources[Notifier], resources[Settings], request, work)
    headers = answer.headers | {"Idempotency-Key": exchange.idempotency_key or key}
    if again:
        headers["Idempotency-Replayed"] = "true"
    return respond(answer.body.encode(), answer.status, headers=headers)


def _list_answers(
    answers: Answer | tuple[Answer, ...], result: Any, *, keyed: bool, fallback: Fallback | None
) -> tuple[Answer, ...]:
    """With the type that goes over the wire, where they do not name it."""
    more = (*(_KEYED if keyed else ()), *(("Warning",) if fallback else ()))
    return tuple(
        replace(
            one,
            type=result if one.status in _WITH_RESULT and not (one.type or one.content) else one.type,
            headers=one.headers if one.status == 304 else (*one.headers, *more),
        )
        for one in (answers if isinstance(answers, tuple) else (answers,))
    )


def _compile(
    hints: Mapping[str, Any], path: str, *, keyed: bool
) -> tuple[tuple[tuple[str, Bind], ...], tuple[tuple[str, Path | Header], ...]]:
    """How each argument is made, and the parameters among them."""
    binds: list[tuple[str, Bind]] = []
    parameters: list[tuple[str, Path | Header]] = []
    for name, hint in hints.items():
        if name in ("query", "body", "connection"):
            continue
        marks = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Path | Header)]
        if marks:
            parameters += [(name, mark) for mark in marks]
            binds.append((name, _bind_path(name, marks[0], path) if isinstance(marks[0], Path) else marks[0].read))
        elif name == "media_type":
            binds.append((name, lambda call: call.media_type))
        else:
            binds.append((name, _OF_REQUEST.get(hint) or _bind_resource(hint)))
    declared = {name for name, mark in parameters if isinstance(mark, Path)}
    assert declared == set(re.findall(r"{(\w+)}", path)), f"{path} does not name {declared}"
    return tuple(binds), (*parameters, ("idempotency_key", _OPTIONAL_KEY)) if keyed else tuple(parameters)


_OF_REQUEST: Final[dict[Any, Bind]] = {
    Request: lambda call: call.request,
    Request[Any, Any, Any]: lambda call: call.request,
    Fields: lambda call: call.fields,
    Exchange: lambda call: call.exchange,
    Principal: lambda call: call.principal,
    Principal | None: lambda call: call.principal,
}


def _bind_resource(kind: type[Any]) -> Bind:
    return lambda call: call.resources[kind]


def _bind_path(name: str, mark: Path, path: str) -> Bind:
    if mark.rest:
        before, after = (re.sub(r"{\w+}", "[^/]+", part) for part in path.split(f"{{{name}}}"))
        rest = re.compile(f"{before}(.*?)(?:{after})?", re.DOTALL)

        def read(call: Call) -> Any:
            found = rest.fullmatch(call.exchange.path)
            assert found is not None, "it was routed by this path"
            return mark.parse(decode(found[1]))

        return read
    return lambda call: mark.parse(decode(call.request.path_params[name]))


def decode(text: str) -> str:
    """A part of the path without its percent signs.
    Raises `NotFound`: it is not UTF-8, or holds what no stored text can hold."""
    try:
        decoded = unquote_to_bytes(text.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise NotFound() from None
    if "\0" in decoded:
        raise NotFound()
    return decoded


def _route_path(path: str, parameters: tuple[tuple[str, Path | Header], ...]) -> str:
    rests = {name for name, mark in parameters if isinstance(mark, Path) and mark.rest and path.endswith("}")}
    path = _ACTION.sub(r"/v1:\2/\1", path)
    return re.sub(r"{(\w+)}", lambda one: f"{{{one[1]}:{'path' if one[1] in rests else 'str'}}}", path)


_ACTION: Final = re.compile(r"/v1/([^/]+):(bulk|erase|export)")


def route_action(path: str) -> str:
    """The path of `/v1/NAME:ACTION` as it is routed: the router knows whole parts of a path alone."""
    return _ACTION.sub(r"/v1:\2/\1", path) if _ACTION.fullmatch(path) else path


@functools.cache
def unroute_action(template: str) -> str:
    """Takes that back, for the template of a route."""
    return re.sub(r"/v1:(\w+)/(.+)", r"/v1/\2:\1", template)


def _find_result(hint: Any) -> Any:
    """What goes over the wire; None: the answers say it."""
    if get_origin(hint) is Reply:
        (hint,) = get_args(hint)
    return None if hint in (NoneType, ASGIResponse) or get_origin(hint) is not None else hint


def members_of(kind: Any) -> tuple[Any, ...]:
    """Of a union; else what it is itself."""
    return get_args(kind) or (() if kind is None else (kind,))


def _list_errors(
    *errors: int, keyed: bool, access: Access, path: str, offers: tuple[str, ...], any_query: bool, body: Any
) -> tuple[int, ...]:
    follow = {*errors, *access.errors}
    follow |= {409, 422, 503} if keyed else set()
    follow |= set() if any_query else {400}
    follow |= {404} if "{" in path else set()
    follow |= {406} if offers else set()
    follow |= {408, 413, 415, 429} if body else set()
    return tuple(sorted(follow))
