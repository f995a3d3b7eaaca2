"""What goes over the wire of HubSpot's batch endpoints: objects, their properties, and what speaks against them."""

import re
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final, Generic, TypeVar

import msgspec

from app.sandbox.records import Record
from app.sandbox.vendor import Answer, RefusedError, Visit

MAX_INPUTS: Final = 100
MAX_VALUES: Final = 100
"""Of a filter with IN."""
MAX_RESULTS: Final = 200
"""Of a page of a search."""
MAX_FOUND: Final = 10_000
"""Of a search."""
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)", re.ASCII)
"""No exponent: Atlas-Authority/marketing-automation 206 shows one refused."""


class HubSpotObject(msgspec.Struct, frozen=True, kw_only=True):
    """What HubSpot's reference says about one object."""

    type_id: str
    word: str
    """As `type_id`, in the words of refusals."""
    group: str
    """Of its properties."""
    own: frozenset[str]
    """Properties that every account has; there are some more."""
    modified: str
    """The property with the time of the last change."""
    emails: bool = False
    """Whether `email` must be an address, and one record's alone."""
    numbers: frozenset[str] = frozenset()
    options: Mapping[str, tuple[str, ...]] = {}
    """The values of a property that takes no others."""

    @property
    def unique(self) -> frozenset[str]:
        """The vendor's own properties with unique values."""
        return frozenset({"hs_object_id", "email"} if self.emails else {"hs_object_id"})

    @property
    def read_only(self) -> frozenset[str]:
        return frozenset({"hs_object_id", "createdate", self.modified})

    def described(self, name: str) -> dict[str, Any]:
        """The type of a property as `GET /crm/v3/properties` has it. The labels of options are made up."""
        if name in self.numbers:
            return {"type": "number", "fieldType": "number"}
        if name in self.options:
            options = [{"label": value.replace("_", " ").title(), "value": value} for value in self.options[name]]
            return {"type": "enumeration", "fieldType": "select", "options": options}
        return {"type": "string", "fieldType": "text"}

    def wrong_values(self, properties: Mapping[str, str]) -> list[dict[str, Any]]:
        """What HubSpot says about values that their property does not take, a detail each; empty ones clear.

        The words are those of Atlas-Authority/marketing-automation 206, gregorspan/csc-frodx 21 and HubSpot's change
        log of April 2025 (white space).
        """
        wrong = []
        for name, value in properties.items():
            if not value or (name not in self.numbers and name not in self.options):
                continue
            if value != value.strip():
                wrong.append(
                    (name, f'"{value}" includes leading or trailing whitespace.', "LEADING_TRAILING_WHITESPACE")
                )
            elif name in self.numbers and _NUMBER.fullmatch(value) is None:
                wrong.append((name, f"{value} was not a valid number.", "INVALID_INTEGER"))
            elif name in self.options and value not in self.options[name]:
                allowed = ", ".join(self.options[name])
                wrong.append((name, f"{value} was not one of the allowed options: [{allowed}]", "INVALID_OPTION"))
        return [detail(*each) | {"propertyValue": properties[each[0]]} for each in wrong]


def detail(name: str, words: str, code: str) -> dict[str, Any]:
    """One thing that speaks against a property, as HubSpot puts it into its message."""
    return {"isValid": False, "message": words, "error": code, "name": name, "localizedErrorMessage": words}


OBJECTS: Final = msgspec.json.decode(
    files(__package__).joinpath("hubspot_objects.json").read_bytes(), type=dict[str, HubSpotObject]
)
"""`domain` has no unique values: companies are not deduplicated by it through the API (HGData/mk-node-hubspot 194), and
nothing is upserted by it. Of the properties with options `industry` alone is checked."""


class CreateInput(msgspec.Struct, rename="camel", kw_only=True, gc=False):
    properties: dict[str, str]
    object_write_trace_id: str | None = None


class UpdateInput(CreateInput, rename="camel", kw_only=True, gc=False):
    id: str
    id_property: str | None = None


class UpsertInput(CreateInput, rename="camel", kw_only=True, gc=False):
    id: str
    id_property: str


class Id(msgspec.Struct):
    id: str


Input = UpsertInput | UpdateInput | CreateInput
InputT = TypeVar("InputT", UpsertInput, UpdateInput, CreateInput)
T = TypeVar("T")


class Inputs(msgspec.Struct, Generic[T]):
    inputs: list[T]


class Read(Inputs[Id], rename="camel", kw_only=True):
    properties: list[str]
    properties_with_history: list[str]
    id_property: str | None = None


class Filter(msgspec.Struct, rename="camel", kw_only=True):
    property_name: str
    operator: str
    values: list[str] = []


class FilterGroup(msgspec.Struct):
    filters: list[Filter]


class Search(msgspec.Struct, rename="camel", kw_only=True):
    filter_groups: list[FilterGroup]
    properties: list[str] = []
    limit: int = 10
    after: str | None = None


def bad_request(message: str, **context: list[str]) -> RefusedError:
    """The whole batch is refused."""
    return RefusedError(refusal(400, "VALIDATION_ERROR", message, **context))


encode: Final = msgspec.json.Encoder().encode
B = TypeVar("B", bound=Inputs[Any])


def of(visit: Visit) -> HubSpotObject:
    """The object that a call is about."""
    return OBJECTS[visit.object]


def parse(kind: type[B], visit: Visit) -> B:
    """
    Raises:
        RefusedError: the body is none of this kind, or holds too much, nothing, or an id twice.
    """
    try:
        body: B = msgspec.json.decode(visit.body, type=kind)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"Invalid input JSON: {error}") from error
    visit.call.n = len(body.inputs)
    if not body.inputs:
        raise bad_request("inputs must not be empty")
    if len(body.inputs) > MAX_INPUTS:
        raise bad_request(f"The number of inputs is {len(body.inputs)}, more than the limit of {MAX_INPUTS}")
    ids = [key for key, times in Counter(map(id_of, body.inputs)).items() if key and times > 1]
    if ids:
        raise bad_request(f"Duplicate IDs found in batch input: [{', '.join(ids)}]. IDs must be unique", ids=ids)
    return body


def parse_search(visit: Visit) -> tuple[Search, Filter]:
    """One filter, with the operator IN: the others of HubSpot are not known here.

    Raises:
        RefusedError: the body is no such search, or exceeds a limit of HubSpot's.
    """
    try:
        body = msgspec.json.decode(visit.body, type=Search)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"Invalid input JSON: {error}") from error
    filters = [one for each in body.filter_groups for one in each.filters]
    if len(filters) != 1 or filters[0].operator != "IN" or not filters[0].values:
        raise bad_request(
            "There was a problem with the request: one filter with the operator IN and values is expected"
        )
    if len(filters[0].values) > MAX_VALUES:
        raise bad_request(f"The number of values is {len(filters[0].values)}, more than the limit of {MAX_VALUES}")
    if not 1 <= body.limit <= MAX_RESULTS or not (body.after or "0").isdecimal() or int(body.after or 0) >= MAX_FOUND:
        raise bad_request(f"limit must be 1 to {MAX_RESULTS}, and no page begins after {MAX_FOUND} results")
    check_properties(visit, [{filters[0].property_name: ""}], written=False)
    return body, filters[0]


def check_key(visit: Visit, names: set[str]) -> None:
    """An id property must be there, and have unique values. The record id is none: an update has it as `id` alone, and
    an upsert not at all (segmentio/action-destinations 3957 shows the refusal)."""
    check_properties(visit, [dict.fromkeys(names, "")], written=False)
    for name in names - ({"email"} if of(visit).emails else set()):
        if not visit.schema.is_declared(name, visit.object):
            raise bad_request(f"Unable to perform update/upsert by non-unique {of(visit).type_id} property {name}")


def check_properties(visit: Visit, rows: Iterable[dict[str, str]], *, written: bool = True) -> None:
    """Properties that the account does not have, or lets nobody write, refuse the batch, in HubSpot's own form."""
    names = list(dict.fromkeys(name for properties in rows for name in properties))
    wrong = [
        detail(name, f'Property "{name}" does not exist', "PROPERTY_DOESNT_EXIST")
        for name in visit.missing_fields(names)
    ]
    if written:
        read_only = [name for name in names if name in of(visit).read_only]
        wrong += [detail(name, f'"{name}" is a read only property', "READ_ONLY_VALUE") for name in read_only]
    if wrong:
        raise bad_request(not_valid(wrong))


def not_valid(details: list[dict[str, Any]]) -> str:
    """HubSpot's message about properties of one input, or of a batch."""
    return f"Property values were not valid: {encode(details).decode()}"


def check_inputs(visit: Visit, inputs: Sequence[Input]) -> None:
    """What refuses a batch whose keys are good; e-mail addresses become what HubSpot makes of them."""
    for item in inputs:
        if of(visit).emails and "email" in item.properties:
            item.properties["email"] = item.properties["email"].strip().lower()
    check_properties(visit, (item.properties for item in inputs))
    for item in inputs:
        if item.object_write_trace_id is not None:
            continue
        # Without trace ids HubSpot has no errors of single inputs for such values, and for what is not unique: the
        # first refuses all (Atlas-Authority/marketing-automation 206).
        wrong = of(visit).wrong_values(item.properties)
        if wrong:
            raise bad_request(not_valid(wrong))
        words = conflict(visit, item)
        if words is not None:
            raise RefusedError(refusal(409, "CONFLICT", words))


def id_of(item: Input | Id) -> str:
    """What faults name a record by; empty for a new one."""
    return getattr(item, "id", "")


def conflict(visit: Visit, item: Input) -> str | None:
    """The contact with this e-mail address, if it is another one, in HubSpot's words."""
    email = item.properties.get("email") if of(visit).emails else None
    owner = visit.records.find(visit.portal, email, "email") if email else None
    mine = (
        visit.records.find(visit.portal, item.id, item.id_property)
        if isinstance(item, UpsertInput | UpdateInput)
        else None
    )
    if owner is None or owner is mine:
        return None
    return f"Contact already exists. Existing ID: {owner.id}"


def taken(name: str, value: str, record_id: str) -> str:
    wrong = detail(name, f"{record_id} already has that value.", "CONFLICTING_UNIQUE_VALUE")
    return not_valid([wrong | {"propertyValue": value}])


def missing(visit: Visit, ids: list[str], context: Mapping[str, list[str]]) -> dict[str, Any]:
    """The error about records that are not there."""
    words = f"Could not get some {of(visit).word} objects, they may be deleted or not exist. Check that ids are valid."
    return item_error("OBJECT_NOT_FOUND", words, {"ids": ids, **context})


def result_of(record: Record, properties: Mapping[str, str | None]) -> dict[str, Any]:
    modified = OBJECTS[record.object].modified
    facts = {"createdate": record.created_at, "hs_object_id": record.id, modified: record.updated_at}
    times = {"createdAt": record.created_at, "updatedAt": record.updated_at}
    return {"id": record.id, "properties": {**properties, **facts}, **times, "archived": False}


def item_error(category: str, message: str, context: dict[str, list[str]] | None) -> dict[str, Any]:
    error: dict[str, Any] = {"status": "error", "category": category, "message": message}
    if context is not None:
        error["context"] = context
    return error


def refusal(status: int, category: str, message: str, **context: list[str]) -> Answer:
    body = item_error(category, message, context or None) | {"correlationId": str(uuid.uuid4())}
    return Answer(status=status, body=encode(body))
