"""The kinds of destination there are, and what each lets one choose.

Adding a kind is one registration here (`KINDS`) and one file `jobs/crm/<kind>.py`; `docs/adapters.md` tells how.
Options are checked when a destination is added. A worker reads what is stored and passes over options that its
release does not know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

STANDARD_FIELDS: Final = ("email", "first_name", "last_name", "phone", "company")
"""What a contact has beside its key and its attributes."""

Name = Annotated[str, Meta(min_length=1, max_length=255)]
Mapping_ = Annotated[dict[Name, Name | None], Meta(max_length=1000)]
Path = Annotated[str, Meta(pattern=r"^(/[!$&-;=@-Z_a-z~%]*)?\Z", max_length=1000)]
"""Of a URL, appended to the base URL: empty, or beginning with a slash; no query."""
FieldPath = Annotated[str, Meta(max_length=255)]
"""The name of a field, or several names joined by dots for one within another."""


class OptionsError(ValueError):
    """The options cannot be used; the message names place and remedy."""


class Limits(msgspec.Struct, frozen=True):
    """How a destination wants to be called; `None` leaves it to the settings."""

    batch_size: int | None = None
    """Contacts a call."""
    concurrency: int | None = None
    """Calls at a time."""
    rate: float | None = None
    """Calls a second."""
    connect_timeout: float | None = None
    total_timeout: float | None = None


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every kind has."""

    batch_size: Annotated[int, Meta(ge=1, le=1000, description="most contacts a call")] | None = None
    concurrency: Annotated[int, Meta(ge=1, le=64, description="most calls at a time")] | None = None
    rate: Annotated[float, Meta(gt=0, le=10_000, description="most calls a second")] | None = None
    connect_timeout: (
        Annotated[float, Meta(gt=0, le=60, description="seconds to wait for a connection")] | None
    ) = None
    total_timeout: (
        Annotated[float, Meta(gt=0, le=60, description="seconds a call may take in all")] | None
    ) = None
    fields: Annotated[
        Mapping_,
        Meta(description="our field or attribute → the name it has there, or null to keep it at home"),
    ] = {}

    @property
    def limits(self) -> Limits:
        return Limits(**{name: getattr(self, name) for name in Limits.__struct_fields__})

    def __post_init__(self) -> None:
        if (
            self.connect_timeout is not None
            and self.total_timeout is not None
            and self.connect_timeout > self.total_timeout
        ):
            raise ValueError("connect_timeout is within total_timeout, so it cannot be longer")
        check_targets(self.fields)


def check_targets(fields: Mapping[str, str | None], *taken: str) -> None:
    """
    Raises:
        ValueError: two of our fields would meet in one of theirs, or one in a field that has another use.
    """
    sources: dict[str, str] = {}
    for source, target in fields.items():
        if target is None:
            continue
        if target in taken:
            raise ValueError(f"fields: {source!r} cannot go to {target!r}, which has another use")
        if target in sources:
            raise ValueError(f"fields: {sources[target]!r} and {source!r} cannot both go to {target!r}")
        sources[target] = source


_API_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class HubSpotOptions(Options, frozen=True, kw_only=True):
    batch_size: Annotated[int, Meta(ge=1, le=100, description="most contacts a call")] | None = None
    id_property: Annotated[
        Name, Meta(description="internal name of the contact property with unique values that holds our key")
    ] = "tranche_id"
    properties: Annotated[
        Mapping_, Meta(description="the older name of `fields`, for attributes alone; `fields` goes first")
    ] = {}
    time_zone: Annotated[
        str, Meta(description="IANA time zone of the account, in which its daily quota starts anew")
    ] = "UTC"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.id_property in ("email", "firstname", "lastname", "phone", "company"):
            raise ValueError(
                f"id_property cannot be {self.id_property!r}: a unique property must hold the key alone"
            )
        check_targets(self.fields, self.id_property)
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"time_zone is no known IANA time zone: {self.time_zone!r}") from error


class SalesforceOptions(Options, frozen=True, kw_only=True):
    batch_size: Annotated[int, Meta(ge=1, le=200, description="most contacts a call")] | None = None
    external_id_field: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z][A-Za-z0-9_]*\Z",
            max_length=80,
            description="API name of the unique, case-sensitive external id field of Contact that holds our key",
        ),
    ] = "Tranche_Id__c"
    api_version: Annotated[
        str,
        Meta(pattern=r"^v?[1-9][0-9]{1,2}\.0\Z", description="of the REST API; 46.0 is the oldest that can"),
    ] = "60.0"
    default_last_name: Annotated[
        Name | None,
        Meta(description="LastName of contacts that have none; without it Salesforce refuses them"),
    ] = None
    quota_share: Annotated[
        float,
        Meta(gt=0, le=1, description="share of the organisation's daily API calls after which it pauses"),
    ] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_targets(self.fields, self.external_id_field)
        for source, target in self.fields.items():
            if target is not None and (
                not _API_NAME.fullmatch(target) or target.lower() in ("id", "attributes")
            ):
                raise ValueError(
                    f"fields: {target!r}, for {source!r}, is no API name of a field, like Tier__c"
                )
        if float(self.api_version.removeprefix("v")) < 46:
            raise ValueError("api_version: 46.0 is the oldest that can upsert collections")


class HttpOptions(Options, frozen=True, kw_only=True):
    batch_size: Annotated[int, Meta(ge=1, le=1000, description="most contacts a call")] | None = None
    path: Annotated[Path, Meta(description="where contacts are sent, appended to the base URL")] = "/contacts"
    method: Annotated[Literal["POST", "PUT", "PATCH"], Meta(description="POST, PUT or PATCH")] = "POST"
    read_path: Annotated[
        Path | None,
        Meta(
            description='where `POST {"ids":[…]}` tells what is there; null: a lost answer cannot be settled by reading'
        ),
    ] = None
    archive_path: Annotated[
        Path | None,
        Meta(
            description='where `POST {"ids":[…]}` takes contacts away; null: they are sent as deleted along the path'
        ),
    ] = None
    auth_header: Annotated[
        str,
        Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z", max_length=100, description="header with the token"),
    ] = "Authorization"
    auth_scheme: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]*\Z",
            max_length=100,
            description="word before the token, or empty",
        ),
    ] = "Bearer"
    wrapper: Annotated[
        Name | None, Meta(description="key of the list of contacts; null: the body is the list")
    ] = "contacts"
    id_field: Annotated[Name, Meta(description="field with our key")] = "id"
    version_field: Annotated[
        Name | None, Meta(description="field with the version; null: it is not sent")
    ] = "version"
    deleted_field: Annotated[
        Name | None,
        Meta(description="field that is true for one to be taken away; null: only archive_path can"),
    ] = "deleted"
    attributes_field: Annotated[
        Name | None,
        Meta(
            description="object with the attributes that `fields` does not name; null: they stand beside the fields"
        ),
    ] = "attributes"
    results: Annotated[
        Literal["optional", "required", "ignored"],
        Meta(description="whether a 2xx may lack item results (all is well), must have them, or is not read"),
    ] = "optional"
    results_field: Annotated[
        FieldPath,
        Meta(description="where the list of item results is in the answer; empty: the body is the list"),
    ] = "results"
    results_by: Annotated[
        Literal["id", "position"],
        Meta(description="whether item results name their contact or stand in its place"),
    ] = "id"
    result_id: Annotated[FieldPath, Meta(description="field of an item result: our key")] = "id"
    result_ok: Annotated[
        FieldPath,
        Meta(
            description="field of an item result: true or false, an HTTP status, or a word such as ok, failed, retry"
        ),
    ] = "ok"
    result_retry: Annotated[
        FieldPath, Meta(description="field of an item result that failed: true if it is worth sending again")
    ] = "retry"
    result_error: Annotated[FieldPath, Meta(description="field of an item result: what went wrong")] = "error"
    result_remote_id: Annotated[
        FieldPath, Meta(description="field of an item result or record: its id there")
    ] = "remote_id"
    idempotent: Annotated[
        bool,
        Meta(
            description="the service does no call twice that has one Idempotency-Key, so a lost answer is sent again"
        ),
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        own = [self.id_field, self.version_field, self.deleted_field, self.attributes_field]
        named = [name for name in own if name is not None]
        if len(set(named)) < len(named):
            raise ValueError("id_field, version_field, deleted_field and attributes_field must differ")
        check_targets(self.fields, *named)
        if self.auth_header.lower() in _OUR_HEADERS:
            raise ValueError(f"auth_header cannot be {self.auth_header!r}: that header has another use")


_OUR_HEADERS: Final = frozenset(
    {
        "accept",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "idempotency-key",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-event-id",
        "x-request-id",
    }
)

Chosen = TypeVar("Chosen", bound=Options)


class Kind(msgspec.Struct, frozen=True):
    """One kind of destination."""

    options: type[Options]
    batch_size: int
    """Most contacts a call, unless options say less."""
    description: str


KINDS: Final[dict[str, Kind]] = {
    "hubspot": Kind(HubSpotOptions, 100, "HubSpot contacts, by batch upsert on a unique property"),
    "salesforce": Kind(
        SalesforceOptions, 200, "Salesforce contacts, by sObject Collections upsert on an external id"
    ),
    "http": Kind(HttpOptions, 100, "any service that takes batches of contacts as JSON over HTTP"),
}
"""The one registration of a kind; `jobs/crm/<kind>.py` has its adapter."""


def parse(kind: str, options: Mapping[str, Any]) -> Options:
    """Options of a destination that is to be added.

    Raises:
        OptionsError: no such kind, an unknown option, or a value that cannot be used.
    """
    if kind not in KINDS:
        raise OptionsError(f"{kind!r} is no kind of destination; there are: {', '.join(KINDS)}.")
    return _convert(KINDS[kind].options, options, kind)


def read(options: Mapping[str, Any], cls: type[Chosen]) -> Chosen:
    """Options as they are stored; those that this release does not know are passed over.

    Raises:
        OptionsError: a value that cannot be used.
    """
    known = {name: value for name, value in options.items() if name in cls.__struct_fields__}
    return _convert(cls, known, None)


def read_option(kind: str, name: str, text: str) -> Any:
    """An option as it is typed on a command line: as JSON where that can be used, else as the text it is."""
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text
    return text if not _usable(kind, name, value) and _usable(kind, name, text) else value


def _usable(kind: str, name: str, value: Any) -> bool:
    try:
        parse(kind, {name: value})
    except OptionsError:
        return False
    return True


def limits_of(options: Mapping[str, Any]) -> Limits:
    """The limits among stored options of any kind.

    Raises:
        OptionsError: a value that cannot be used.
    """
    return read({name: options.get(name) for name in Limits.__struct_fields__}, Options).limits


class Described(msgspec.Struct, frozen=True):
    """An option in words, with its default."""

    words: str
    default: Any


def describe(cls: type[Options]) -> dict[str, Described]:
    """Every option of a kind, for remedies and documents."""
    hints, defaults = get_type_hints(cls, include_extras=True), cls()
    return {
        name: Described(_description(hints[name]), getattr(defaults, name)) for name in cls.__struct_fields__
    }


_UNKNOWN: Final = re.compile(r"unknown field `(.*)`$", re.DOTALL)
_PLACE: Final = re.compile(r"(.*) - at (?:`key` in )?`\$\.?(.*)`$", re.DOTALL)


def _convert(cls: type[Chosen], options: Mapping[str, Any], kind: str | None) -> Chosen:
    try:
        return msgspec.convert(dict(options), cls)
    except msgspec.ValidationError as error:
        raise OptionsError(_explain(cls, str(error), kind)) from error


def _explain(cls: type[Options], message: str, kind: str | None) -> str:
    """What is wrong, where, and what would be right."""
    unknown = _UNKNOWN.search(message)
    if unknown is not None:
        names = ", ".join(cls.__struct_fields__)
        return f"options.{unknown[1]}: {kind or 'this kind'} has no such option; there are: {names}."
    place = _PLACE.match(message)
    if place is None:
        return f"options: {message}."
    what = "It has characters that cannot stand there" if "matching regex" in place[1] else place[1]
    option = describe(cls).get(re.split(r"[.\[]", place[2])[0])
    told = option.words if option is not None else ""
    return f"options.{place[2]}: {what}." + (f" ({told[0].upper()}{told[1:]}.)" if told else "")


def _description(hint: Any) -> str:
    """The words of the outermost annotation that has any."""
    if get_origin(hint) is Annotated:
        for meta in reversed(hint.__metadata__):
            if isinstance(meta, Meta) and meta.description:
                return meta.description
    return next(filter(None, map(_description, get_args(hint))), "")
