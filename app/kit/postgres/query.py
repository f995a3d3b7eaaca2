"""Named queries as typed functions, which read rows by the names of their columns.

    read_undo = Query[[int, uuid.UUID], UndoRow | None]("read_undo")

is a function of a connection, a tenant and a job; or, where arguments deserve names or defaults,

    @query
    async def read_items(connection: Connection, tenant_id: int, *, before: int, limit: int) -> list[Item]: ...

The arguments are `$1`, `$2` … in their order; or the statement names its own (`:job_id`), and each is the argument of
that name, or the field of that name of a struct among them. `Seconds` are given as an interval, `Json[T]` as JSON text.
In place of the connection a struct may be given that holds it, and the arguments before all others. The type of the
result says how it is read:

    None         nothing is read              Affected     how many rows the statement touched
    list[Row]    every row                    Found        whether there was a row
    Row | None   the first row, if any        set[Row]     every row, in any order
    Row          the one row there must be

`Row` is a struct, whose fields are the columns by name, in whatever order; a tuple of their types; `dict[str, Any]`; or
the type of the first column, where the others only make something happen. Enumerations are made from their values, a
field of type `Json[T]` from its JSON text. `tests/db/test_queries.py` prepares every query and compares columns and
parameters with the declaration.
"""

import functools
import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from enum import Enum
from operator import itemgetter
from typing import Annotated, Any, Final, Generic, ParamSpec, TypeAlias, TypeVar, cast, overload

import msgspec

from app.kit.postgres.database import Connection
from app.kit.postgres.sql import PARAMETERS, QUERIES

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Awaitable[Any]])

Found: TypeAlias = Annotated[bool, "found"]
"""Whether a query returned a row."""
Affected: TypeAlias = Annotated[int, "affected"]
"""How many rows a statement wrote or removed."""
Seconds: TypeAlias = Annotated[float, "seconds"]
"""An interval."""
Json = Annotated[T, "json"]
"""JSON: a column is decoded, a parameter is encoded."""

_Read = Callable[[Any], Any]
_Run = Callable[[Any, Sequence[Any]], Awaitable[Any]]
_MISSING: Final = object()


class Declaration(msgspec.Struct, frozen=True):
    """What is known of a query where it is declared."""

    run: _Run
    row: Any
    """The type of a row; `None`: no row is read."""
    arguments: list[Any]
    """The types of the statement's arguments."""


DECLARED: Final[dict[str, Callable[[], Declaration]]] = {}
"""By the names of queries; complete once every module of queries is imported."""


class Query(Generic[P, R]):
    """A query as its arguments and its result: `Query[[int, str], Row | None]("name")`."""

    def __init__(self, name: str, *, timeout: float | None = None) -> None:
        """`timeout`: seconds, where the connection's own are too few.

        Raises:
            KeyError: there is no such query.
            TypeError: it is declared elsewhere.
        """
        self._name = name
        self._timeout = timeout
        self._run: _Run | None = None
        _register(name, self.declare)

    def __call__(self, connection: Connection, *arguments: P.args, **_: P.kwargs) -> Awaitable[R]:
        if self._run is None:
            self._run = self.declare().run
        return self._run(connection, arguments)

    def declare(self) -> Declaration:
        kinds, result = typing.get_args(self.__orig_class__)  # type: ignore[attr-defined]  # set by Generic
        return _declare(self._name, [(None, kind) for kind in kinds], result, self._timeout)


@overload
def query(named: Function) -> Function: ...
@overload
def query(named: str | None = None, *, timeout: float | None = None) -> Callable[[Function], Function]: ...
def query(named: Any = None, *, timeout: float | None = None) -> Any:
    """Declare a function as a query: that of its own name, or the one `named`; see `Query`."""
    if not callable(named):
        return lambda function: _decorate(function, named or function.__name__, timeout)
    return _decorate(named, named.__name__, timeout)


def _decorate(function: Function, name: str, timeout: float | None) -> Function:
    hints = typing.get_type_hints(function, localns={"Connection": Any}, include_extras=True)
    first, *parameters = inspect.signature(function).parameters.values()
    names = [parameter.name for parameter in parameters]
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    scope = [(f, kind) for f, kind in (fields_of(hints[first.name]) or {}).items() if f != "connection"]
    named = [*scope, *((parameter, hints[parameter]) for parameter in names)]
    declared = _declare(name, named, hints["return"], timeout)
    _register(name, lambda: declared)

    @functools.wraps(function)
    def call(connection: Any, *arguments: Any, **named: Any) -> Awaitable[Any]:
        if len(arguments) < len(names):
            given = defaults | named
            arguments += tuple([given[missing] for missing in names[len(arguments) :]])
        if scope:
            arguments = (*[getattr(connection, field) for field, _ in scope], *arguments)
            connection = connection.connection
        return declared.run(connection, arguments)

    return cast(Function, call)


def _register(name: str, declare: Callable[[], Declaration]) -> None:
    QUERIES[name]  # fails at once if there is none
    if name in DECLARED:
        raise TypeError(f"the query {name} is declared twice")
    DECLARED[name] = declare


def _declare(name: str, arguments: Sequence[tuple[str | None, Any]], result: Any, timeout: float | None) -> Declaration:
    """`arguments`: their names, where they have any, and types."""
    run, row = _runner(name, result, timeout)
    bind, kinds = _binder(name, arguments)
    if bind is None:
        return Declaration(run, row, kinds)
    return Declaration(lambda connection, given: run(connection, bind(given)), row, kinds)


def _binder(
    name: str, arguments: Sequence[tuple[str | None, Any]]
) -> tuple[Callable[[Sequence[Any]], list[Any]] | None, list[Any]]:
    """What makes the statement's arguments of a call's (`None`: they are the same), and their types."""
    kinds = [kind for _, kind in arguments]
    wanted = PARAMETERS.get(name)
    if wanted is None:
        takes = [_converted(kind, itemgetter(place)) for place, kind in enumerate(kinds)]
        if not any(_encoder(kind) for kind in kinds):
            return None, kinds
        return (lambda given: [take(given) for take in takes]), kinds
    sources: dict[str, tuple[Any, Callable[[Sequence[Any]], Any]]] = {}
    for place, kind in enumerate(kinds):
        for field, of in (fields_of(kind) or {}).items():
            sources[field] = (of, _converted(of, _member(place, field)))
    nameless = iter([parameter for parameter in wanted if parameter not in sources])
    for place, (argument, kind) in enumerate(arguments):
        if fields_of(kind) is None:
            sources[argument or next(nameless)] = (kind, _converted(kind, itemgetter(place)))
    if missing := set(wanted) - set(sources):
        raise TypeError(f"the query {name} lacks {', '.join(sorted(missing))}")
    chosen = [sources[parameter] for parameter in wanted]
    return (lambda given: [take(given) for _, take in chosen]), [kind for kind, _ in chosen]


def _member(place: int, field: str) -> Callable[[Sequence[Any]], Any]:
    return lambda arguments: getattr(arguments[place], field)


def _converted(kind: Any, take: Callable[[Sequence[Any]], Any]) -> Callable[[Sequence[Any]], Any]:
    encode = _encoder(kind)
    return take if encode is None else lambda arguments: encode(take(arguments))


def _encoder(kind: Any) -> Callable[[Any], Any] | None:
    """What makes an argument for PostgreSQL of a parameter, where that is not the value itself."""
    if _none_of(kind):
        encode = _encoder(_without_none(kind))
        return None if encode is None else lambda value: None if value is None else encode(value)
    if typing.get_origin(kind) is not Annotated:
        return None
    if "seconds" in kind.__metadata__:
        return lambda seconds: timedelta(seconds=seconds)
    return (lambda value: msgspec.json.encode(value).decode()) if "json" in kind.__metadata__ else None


def _runner(name: str, result: Any, timeout: float | None) -> tuple[_Run, Any]:
    """How the query is run and read, and the type of its rows."""
    if result is type(None):
        return _execution(name, timeout, lambda _: None), None
    if result == Affected:
        return _execution(name, timeout, lambda status: int(status.rpartition(" ")[2])), None  # "DELETE 17"
    if result == Found:
        return _first(name, timeout, lambda _: True, False), None
    origin = typing.get_origin(result)
    if origin in (list, set):
        (row,) = typing.get_args(result)
        return _many(name, timeout, origin, Rows(name, row)), row
    if _none_of(result):
        row = _without_none(result)
        return _first(name, timeout, Rows(name, row).read_one, None), row
    return _first(name, timeout, Rows(name, result).read_one, _MISSING), result


def _execution(name: str, timeout: float | None, read: _Read) -> _Run:
    async def run(connection: Any, arguments: Sequence[Any]) -> Any:
        return read(await connection.execute(QUERIES[name], *arguments, timeout=timeout))

    return run


def _first(name: str, timeout: float | None, read: _Read, missing: Any) -> _Run:
    async def run(connection: Any, arguments: Sequence[Any]) -> Any:
        record = await connection.fetchrow(QUERIES[name], *arguments, timeout=timeout)
        if record is not None:
            return read(record)
        if missing is _MISSING:
            raise LookupError(f"the query {name} returned no row")
        return missing

    return run


def _many(name: str, timeout: float | None, collect: Any, rows: "Rows") -> _Run:
    async def run(connection: Any, arguments: Sequence[Any]) -> Any:
        return collect(rows.read(await connection.fetch(QUERIES[name], *arguments, timeout=timeout)))

    return run


class Rows:
    """Reads the rows of one query into one type, by a plan that is made from the first of them."""

    def __init__(self, name: str, row: Any) -> None:
        self._name = name
        self._row = row
        self._planned: _Read | None = None

    def read(self, records: Sequence[Any]) -> Iterable[Any]:
        return map(self._plan(records[0]), records) if records else ()

    def read_one(self, record: Any) -> Any:
        return self._plan(record)(record)

    def _plan(self, record: Any) -> _Read:
        if self._planned is None:
            self._planned = plan(self._name, self._row, tuple(record.keys()))
        return self._planned


def plan(name: str, row: Any, columns: tuple[str, ...]) -> _Read:
    """How to make a row of this type from a record with these columns.
    Raises `TypeError`: the type has other fields than there are columns."""
    if typing.get_origin(row) is dict:
        return dict
    if typing.get_origin(row) is tuple:
        if len(columns) != len(typing.get_args(row)):
            raise TypeError(f"the query {name} has {len(columns)} columns, not those of {row}")
        return tuple
    fields = fields_of(row)
    if fields is None:
        convert = _converter(row)
        return itemgetter(0) if convert is None else lambda record: convert(record[0])
    if sorted(fields) != sorted(columns):
        odd = ", ".join(sorted(set(fields) ^ set(columns)))
        raise TypeError(f"the query {name} and {row.__name__} do not agree about: {odd}")
    converters = {field: c for field, kind in fields.items() if (c := _converter(kind)) is not None}
    if converters or len(getattr(row, "__match_args__", fields)) < len(fields):

        def by_name(record: Any) -> Any:
            values = dict(record)
            for field, convert in converters.items():
                values[field] = convert(values[field])
            return row(**values)

        return by_name
    if tuple(fields) == columns:
        return lambda record: row(*record)
    order = itemgetter(*(columns.index(field) for field in fields))
    return lambda record: row(*order(record))


def fields_of(row: Any) -> dict[str, Any] | None:
    """The types of a struct's fields by name; `None`: it is none, but a value."""
    if isinstance(row, type) and issubclass(row, msgspec.Struct):
        return {field.name: field.type for field in msgspec.structs.fields(row)}
    return None


def _converter(kind: Any) -> Callable[[Any], Any] | None:
    """What makes a field from a column's value, where that is not the value itself."""
    if _none_of(kind):
        convert = _converter(_without_none(kind))
        return None if convert is None else lambda value: None if value is None else convert(value)
    if typing.get_origin(kind) is Annotated:
        if "json" in kind.__metadata__:
            return msgspec.json.Decoder(kind.__origin__).decode
        return _converter(kind.__origin__)
    return kind if isinstance(kind, type) and issubclass(kind, Enum) else None


def _none_of(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType) and type(None) in typing.get_args(kind)


def _without_none(kind: Any) -> Any:
    left = [part for part in typing.get_args(kind) if part is not type(None)]
    return functools.reduce(lambda one, other: one | other, left)
