"""`POST /v1/{type}:bulk`."""

from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Request
from litestar.response.base import ASGIResponse

from app.errors import Invalid
from app.files.csv_cells import compile_date_format
from app.files.csv_mapping import MappingError, names_of
from app.files.readers import WORDING, Family, Form
from app.files.tables.table_reader import TABLES
from app.http import headers
from app.http.headers import Fields, Preferences
from app.http.operation import Answer, Call, Header, PerType, operation
from app.http.parameters import TypeName, describe_wait, read_preferences
from app.http.principal import Principal
from app.http.request_context import Exchange
from app.imports.reception import SCOPES, Importer, ReceivedImport, route_of
from app.imports.service import ImportRequest, Options
from app.imports.upload import QueuedAnswer
from app.kit.postgres.database import Database
from app.resource_types.catalog import Catalog
from app.resources.declaration import Resource
from app.resources.decoding import item_of
from app.settings import Settings
from app.vocabulary import outcomes_wire
from app.vocabulary.states import Consistency

_SETTLING: Final = 5.0
"""Seconds beyond `wait` for which others get 409, so that the answer can still be put in place."""


class ImportQuery(msgspec.Struct, frozen=True, kw_only=True):
    atomic: bool = False
    """All or nothing: one failing item fails all."""
    dry_run: bool = False
    """Report what would happen, and change nothing."""
    on_duplicate: Literal["fail", "last_wins"] = "fail"
    """Differing items with one id: all of them fail, or the last one counts."""
    consistency: Consistency = Consistency.NONE
    """`all_destinations`: an item that one destination finally refuses is undone at the others, and here, by a job
    that the import then shows as `compensated_by`."""
    map: list[Annotated[str, msgspec.Meta(examples=["Customer Id:id"])]] = []
    """Renames a column of a CSV or a workbook, as `Column:field`, percent-encoded; repeat it for more. The last colon
    separates. An e-mail column that is renamed to `id` is both, if no other column is `email`."""
    ignore: list[Annotated[str, msgspec.Meta(examples=["Internal note"])]] = []
    """Leaves a column of a CSV or a workbook out; repeat it for more."""
    decimal: Literal[".", ","] | None = None
    """Which sign begins the fraction of a number in a CSV, or in a cell of a workbook that is text; the other one may
    then separate thousands. Without it, numbers are like 1200.5."""
    date_format: Annotated[str, msgspec.Meta(examples=["DD.MM.YYYY"])] | None = None
    """How a CSV writes dates, or a cell of a workbook that is text, of YYYY, MM and DD. Without it, like 2026-03-31."""
    sheet: Annotated[str, msgspec.Meta(min_length=1, max_length=255, examples=["Customers"])] | None = None
    """Which sheet of a workbook is meant, by its name or its number, from 1. Without it, the first visible one that has
    contents."""


def _read_key(call: Call) -> str:
    key, call.exchange.idempotency_key = headers.read_key(call.fields)
    return key


IdempotencyKey = Annotated[
    str,
    Header(
        name="Idempotency-Key",
        description="Identifies this request, so that sending it twice does its work once; bare, or quoted as in RFC "
        "8941.",
        read=_read_key,
        schema=headers.KEY_SCHEMA,
        required=True,
    ),
]
Prefer = Annotated[
    Preferences,
    Header(
        name="Prefer",
        description=lambda settings: (
            f"{describe_wait(settings)} `respond-async` stages a batch of any size, and answers with 202."
        ),
        read=read_preferences,
    ),
]
ContentEncoding = Annotated[
    None,
    Header(
        name="Content-Encoding",
        description="How the body is compressed.",
        read=lambda asked: None,  # app.http.body.reader reads it
        schema={"enum": ["gzip", "zstd", "identity"]},
    ),
]
_NDJSON: Final = (
    "One `Item` a line, in UTF-8; blank lines are left out. Also `application/ndjson`, `application/jsonl`."
)


def _describe_csv(resource: Resource) -> str:
    rest = "becomes an attribute of that name" if resource.attributes else "must be left out (`ignore=`)"
    return (
        f"RFC 4180 with a header row. {', '.join(f'`{name}`' for name in names_of(resource).fields)} are recognized "
        f"whatever their case, spaces, dashes and underscores; any other column {rest}. An empty cell leaves the "
        "field as it is. Cells are separated by commas, semicolons, tabs or bars, whichever splits the header into the "
        "most columns. UTF-8 with or without a byte order mark, UTF-16 with one, or as `charset` says: `utf-16le`, "
        "`utf-16be`, `windows-1252`, `iso-8859-1`, `iso-8859-15`."
    )


def _describe_workbook(settings: Settings) -> str:
    return (
        "A workbook (XLSX) as it is; one of its sheets (`sheet=`) is read as the same table in a CSV would be. Numbers "
        "are written plainly, dates and times as in ISO 8601, and formulas as their computed value; a cell that holds "
        "an error fails its item. Errors name the cell. Uncompressed it may have "
        f"{settings.max_workbook_bytes} bytes; save a larger sheet as CSV."
    )


def _describe(settings: Settings) -> str:
    return (
        f"Up to {settings.max_sync_items} items or {settings.max_sync_bytes} bytes (inflated) are decided in one "
        "transaction and answered item by item. More of them, "
        f"up to {settings.max_json_items} items as JSON and {settings.max_file_bytes} bytes as CSV or NDJSON "
        f"({settings.max_workbook_bytes} as a workbook), are "
        "staged while they arrive and processed afterwards; with `atomic=true`, where one transaction holds the "
        f"locks of all items, up to {settings.max_atomic_items} items and {settings.max_atomic_bytes} bytes. "
        "The same request under the same Idempotency-Key gets the same "
        f"bytes for {settings.idempotency_retention / 3600:g} hours and does nothing twice. An unreadable row of a "
        "file fails alone, like any item, and is identified by its line."
    )


def _describe_body(settings: Settings, resource: Resource) -> dict[str, Any]:
    """Schemas by media type."""
    items = {
        "type": "array",
        "maxItems": settings.max_json_items,
        "items": {"$ref": f"#/components/schemas/{item_of(resource).__name__}"},
        "description": "Each item is independent: one that violates its schema fails alone.",
    }
    return {
        headers.JSON: {
            "type": "object",
            "required": ["items"],
            "additionalProperties": False,
            "properties": {"items": items},
        },
        headers.NDJSON: {"type": "string", "description": _NDJSON},
        headers.CSV: {"type": "string", "description": _describe_csv(resource)},
        headers.XLSX: {"type": "string", "format": "binary", "description": _describe_workbook(settings)},
    }


_ECHOED: Final = ("IdempotencyKey", "IdempotencyReplayed", "PreferenceApplied")


@operation(
    "POST",
    "/v1/{type}:bulk",
    tag="records",
    access=SCOPES,
    description=_describe,
    request_body=_describe_body,
    types=(PerType(item_of), outcomes_wire.ItemOutcome),
    answers=(
        Answer(
            "Every item is decided, also when all are ok or all failed.",
            207,
            outcomes_wire.ImportAnswer,
            headers=("Location", *_ECHOED),
        ),
        Answer(
            "Every item is stored durably and will be processed: the batch exceeds the limits of one answer, or "
            "`Prefer: respond-async` was sent. The answer comes at once, whatever `wait` says; wait at the job.",
            202,
            QueuedAnswer,
            headers=("Location", "RetryAfter", *_ECHOED),
        ),
    ),
    errors=(409, 422),
)
async def import_records(
    type: TypeName,
    key: IdempotencyKey,
    query: ImportQuery,
    preferences: Prefer,
    encoding: ContentEncoding,
    fields: Fields,
    exchange: Exchange,
    principal: Principal,
    request: Request[Any, Any, Any],
    importer: Importer,
    catalog: Catalog,
    database: Database,
) -> ASGIResponse:
    """Import a batch of records."""
    resource = catalog.recall(principal.tenant_id, type)
    if resource is None:
        async with database.connection() as connection:
            resource = await catalog.find(connection, principal.tenant_id, type)
    options = Options(
        atomic=query.atomic,
        dry_run=query.dry_run,
        last_wins=query.on_duplicate == "last_wins",
        consistency=query.consistency,
        minimal=preferences.minimal,
        wait=preferences.wait + _SETTLING if preferences.wait else 0.0,
    )
    upload = ImportRequest(
        tenant_id=principal.tenant_id,
        key_id=principal.key_id,
        request_id=exchange.request_id,
        trace=exchange.trace,
        resource=resource,
        route=route_of(type),
        key=key,
        options=options,
        form=_read_form(query, fields, resource),
    )
    asked = ReceivedImport(
        upload=upload, fields=fields, preferences=preferences, exchange=exchange, principal=principal
    )
    return await importer.take(request.receive, asked)


def _read_form(query: ImportQuery, fields: Fields, resource: Resource) -> Form:
    family, charset = headers.read_type(fields)
    if (query.map or query.ignore or query.decimal or query.date_format) and family not in TABLES:
        raise Invalid(
            "map=, ignore=, decimal= and date_format= are for the columns of a CSV or a workbook; name the fields of "
            "JSON items as they are, and write numbers and dates as JSON Schema does."
        )
    if query.sheet is not None and family is not Family.XLSX:
        raise Invalid(f"sheet= is for a workbook, which is sent with Content-Type: {headers.XLSX}.")
    try:
        if query.date_format:
            compile_date_format(query.date_format)
        return Form(
            family=family,
            charset=charset,
            mapping=names_of(resource).parse_mapping(query.map, WORDING, query.ignore),
            decimal=query.decimal or msgspec.UNSET,
            date_format=query.date_format or msgspec.UNSET,
            sheet=query.sheet or msgspec.UNSET,
        )
    except MappingError as error:
        raise Invalid(error.detail) from error
    except ValueError as error:
        raise Invalid(f"date_format: {error}.") from error
