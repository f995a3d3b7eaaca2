"""The kinds of destination there are, and what each lets one choose.

Adding a kind is one registration here (`KINDS`) and one file `jobs/crm/<kind>/adapter.py`; see `docs/adapters.md`.
Options are checked when a destination is added. A worker reads what is stored and passes over options that its
release does not know.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from app.destinations.adapters import OAUTH, Kind, load
from app.destinations.base_urls import KAFKA, OBJECT_STORE, POSTGRESQL
from app.destinations.http_options import HttpOptions
from app.destinations.options import MatchingOptions, MatchOn, Name, Names, Options, OptionsError, convert, of_type
from app.destinations.presets import resolve_preset
from app.resources.declaration import Resource
from app.resources.types.contacts import CONTACTS

_API_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class HubSpotOptions(MatchingOptions, frozen=True, kw_only=True):
    KIND = "hubspot"

    batch_size: Annotated[int, Meta(ge=1, le=100)] | None = None
    id_property: Name = "tranche_id"
    """internal name of the property with unique values that holds our key, of each object that is synced"""
    match_on: MatchOn = "email"
    """field of ours by which a record is looked for before it first goes there: what is found without our key becomes
    ours; `{"TYPE":"FIELD"}` for several types; `{}`: it is not looked for"""
    properties: Names = msgspec.field(default_factory=dict)
    """older name of `fields`, for attributes only; `fields` takes precedence"""
    time_zone: str = "UTC"
    """IANA time zone of the account, in which its daily quota resets"""

    def __post_init__(self) -> None:
        if self.id_property in CONTACTS.named_at(self.KIND).values():
            raise ValueError(
                f"id_property cannot be {self.id_property!r}: a unique property must hold the key alone; records that "
                "HubSpot has already by their e-mail address are adopted (match_on=email)"
            )
        super().__post_init__()
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"time_zone is not a known IANA time zone: {self.time_zone!r}") from error

    def taken(self) -> list[str]:
        return [self.id_property]


class SalesforceOptions(MatchingOptions, frozen=True, kw_only=True):
    KIND = "salesforce"
    CASE_MATTERS = False

    batch_size: Annotated[int, Meta(ge=1, le=200)] | None = None
    external_id_field: Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_]*\Z", max_length=80)] = "Tranche_Id__c"
    """API name of the unique, case-sensitive external id field that holds our key, of each object that is synced"""
    api_version: Annotated[str, Meta(pattern=r"^v?[1-9][0-9]{1,2}\.0\Z")] = "60.0"
    """version of the REST API, 46.0 or later"""
    default_last_name: Name | None = None
    """LastName of new contacts that have none; without it Salesforce refuses them"""
    bulk_from: Annotated[int, Meta(ge=200, le=5_000)] | None = 2_000
    """records of one delivery from which on a job of Bulk API 2.0 writes them, in fewer calls, as those of a large
    sync; null: never"""
    duplicate_rules: Literal["obey", "bypass"] = "obey"
    """whether a record is refused that a duplicate rule of the organisation only warns of, or saved (bypass:
    Sforce-Duplicate-Rule-Header allowSave=true); a rule that blocks refuses it in any case"""
    quota_share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """share of the organisation's daily API calls after which it pauses"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for source, target in self.fields.items():
            if target is not None and (not _API_NAME.fullmatch(target) or target.lower() in ("id", "attributes")):
                raise ValueError(f"fields: {target!r}, for {source!r}, is not an API name of a field, like Tier__c")
        if self.external_id_field.lower() == "id":
            raise ValueError("external_id_field: Id is Salesforce's own; name an external id field of yours")
        if float(self.api_version.removeprefix("v")) < 46:
            raise ValueError("api_version: 46.0 is the oldest that can upsert collections")

    def taken(self) -> list[str]:
        return [self.external_id_field]


class PostgresOptions(Options, frozen=True, kw_only=True):
    KIND = "postgres"

    batch_size: Annotated[int, Meta(ge=1, le=1_000)] | None = None
    table: Annotated[str, Meta(pattern=r'^[^".\x00]+(\.[^".\x00]+)?\Z', max_length=255)] = "{type}"
    """table, or schema and table joined by a dot, as the catalog has them; `{type}` is replaced with the name of the
    type; a table without `{type}` is for contacts alone, unless the destination lists another type as its only one"""
    key_column: Name = "id"
    """column with our key, which is unique"""
    columns: Names = msgspec.field(default_factory=dict)
    """our field or attribute → its column, or null: it is not sent; the same as `fields`, which takes precedence"""
    attributes_column: Name | None = None
    """jsonb column with the attributes that have no column by `columns`; null: each has the column of its name"""
    version_column: Name | None = None
    """integer column with our version, by which an older version never replaces a newer one; null: there is none"""
    deleted_column: Name | None = None
    """boolean or timestamp column that marks removed records; null: their rows are deleted"""
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] | None = None
    """TLS as in libpq; null: verify-full, and prefer in the networks of TRANCHE_DESTINATION_PRIVATE, the only ones for
    disable and prefer"""
    ssl_root_certificate: Annotated[str, Meta(max_length=100_000)] | None = None
    """certificates (PEM) that the server's is verified against, with verify-ca and verify-full; null: those of the
    system"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.taken())) < len(self.taken()):
            raise ValueError("key_column, attributes_column, version_column and deleted_column must differ")
        check_certificates(self.ssl_root_certificate)

    def fields_of(self, type: str) -> dict[str, str | None]:
        return of_type(self.columns, type) | super().fields_of(type)

    def taken(self) -> list[str]:
        own = (self.key_column, self.attributes_column, self.version_column, self.deleted_column)
        return [name for name in own if name is not None]


_PART: Final = r"([A-Za-z0-9_=-]|\{type\})([A-Za-z0-9_.=-]|\{type\})*"


class ObjectOptions(Options, frozen=True, kw_only=True):
    KIND = "object"

    batch_size: Annotated[int, Meta(ge=1, le=5_000)] | None = None
    bucket: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]\Z")] | None = None
    """bucket, by its name after the base URL; null: the base URL leads to it, as `https://BUCKET.s3.…` does"""
    path: Annotated[str, Meta(pattern=rf"^{_PART}(/{_PART})*\Z", max_length=500)] = "{type}"
    """folder of the files, with their manifests in `_manifests` within; `{type}` is replaced with the name of the type;
    a path without `{type}` is for contacts alone, unless the destination lists another type as its only one"""
    region: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{1,63}\Z")] = "us-east-1"
    """region of the bucket, which is part of every signature; many stores other than S3 take any"""
    compression: Literal["gzip", "none"] = "gzip"
    """whether files are compressed; their names then end with `.ndjson.gz`"""
    storage_class: Annotated[str, Meta(pattern=r"^[A-Z0-9_]{1,50}\Z")] | None = None
    """storage class of the files, such as STANDARD_IA; null: that of the bucket"""
    encryption: Literal["AES256", "aws:kms"] | None = None
    """encryption at rest that is asked for with each file; null: that of the bucket"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.verify_every is not None:
            raise ValueError("verify_every: files are not compared with what is here; leave it out")

    def taken(self) -> list[str]:
        return ["id", "version", "type", "deleted", "attributes"]


class KafkaOptions(Options, frozen=True, kw_only=True):
    KIND = "kafka"

    batch_size: Annotated[int, Meta(ge=1, le=1_000)] | None = None
    topic: Annotated[str, Meta(pattern=r"^([A-Za-z0-9._-]|\{type\})+\Z", max_length=249)] = "{type}"
    """topic; `{type}` is replaced with the name of the type; one without `{type}` is for contacts alone, unless the
    destination lists another type as its only one"""
    deleted: Literal["tombstone", "message"] = "tombstone"
    """what a removed record becomes: a message without a value, as compacted topics have it, or one whose document says
    `"deleted": true`"""
    shared: bool = False
    """whether others write to the topic under the same keys: then nobody knows who made a record, and the undo of a
    creation leaves it there"""
    headers: Annotated[dict[Name, Annotated[str, Meta(max_length=1_000)]], Meta(max_length=20)] = msgspec.field(
        default_factory=dict
    )
    """headers of every message beside ours: name → text"""
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
    """how batches are compressed"""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """how user and password are shown, with credentials of the type `basic`; with `none` there is no SASL"""
    tls: bool = True
    """whether connections are encrypted, and every broker's certificate verified for its host name; false: only in the
    networks of TRANCHE_DESTINATION_PRIVATE"""
    ssl_root_certificate: Annotated[str, Meta(max_length=100_000)] | None = None
    """certificates (PEM) that those of the brokers are verified against; null: those of the system"""
    repeatable: bool = True
    """a call whose answer was lost is made again: its messages may then be there twice, with the same key, version and
    event id; false: an operator decides"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if taken := KAFKA_HEADERS.intersection(self.headers):
            raise ValueError(f"headers: every message has {min(taken)!r} from us; choose another name")
        if self.verify_every is not None:
            raise ValueError("verify_every: a topic cannot be asked what it holds")
        check_certificates(self.ssl_root_certificate)

    def taken(self) -> list[str]:
        return ["id", "type", "version", "deleted", "attributes"]


KAFKA_HEADERS: Final = frozenset({"type", "version", "x-event-id", "x-request-id", "traceparent", "tracestate"})
"""Headers that every message has from us."""


def check_certificates(pem: str | None) -> None:
    """Raises `ValueError`: it is no text of a PEM file."""
    if pem is not None and "-----BEGIN CERTIFICATE-----" not in pem:
        raise ValueError("ssl_root_certificate is the text of a PEM file, with -----BEGIN CERTIFICATE-----")


LOOKED_FOR_BY_READ: Final = "records are looked for by read_path, which is not given; give it as well."


_OWN_KINDS: Final[dict[str, Kind]] = {
    "hubspot": Kind(
        HubSpotOptions,
        100,
        "HubSpot contacts and companies, by batch upsert on a unique property",
        authorize_url="https://app.hubspot.com/oauth/authorize",
        token_url="{base_url}/oauth/v1/token",  # noqa: S106 - an address
    ),
    "salesforce": Kind(
        SalesforceOptions,
        200,
        "Salesforce contacts and accounts, by upsert on an external id",
        bulk_size=5_000,
        credentials=("token", "salesforce_jwt", *OAUTH),
        authorize_url="{base_url}/services/oauth2/authorize",
        token_url="{base_url}/services/oauth2/token",  # noqa: S106 - an address
    ),
    "http": Kind(
        HttpOptions,
        100,
        "any service that takes records as JSON over HTTP; presets by vendor",
        takes_any=True,
        credentials=("token", "basic", "headers", *OAUTH),
    ),
    "postgres": Kind(
        PostgresOptions,
        500,
        "a table of your own in PostgreSQL, by upsert on a unique column",
        takes_any=True,
        url=POSTGRESQL,
        credentials=("basic",),
    ),
    "object": Kind(
        ObjectOptions,
        5_000,
        "files in a bucket of an S3-compatible object store, as NDJSON with a manifest each",
        bulk_size=5_000,
        import_size=1_000,
        takes_any=True,
        reads_back=False,
        url=OBJECT_STORE,
        credentials=("basic",),
    ),
    "kafka": Kind(
        KafkaOptions,
        500,
        "a topic of your own in Kafka, one message for each change of a record",
        takes_any=True,
        reads_back=False,
        url=KAFKA,
        credentials=("basic", "none"),
    ),
}
"""The one registration of a kind; `jobs/crm/<kind>/adapter.py` has its adapter."""
INSTALLED: Final = load(_OWN_KINDS)
"""Adapters that other packages bring."""
KINDS: Final[dict[str, Kind]] = _OWN_KINDS | {name: adapter.kind for name, adapter in INSTALLED.items()}


class Reach(msgspec.Struct, frozen=True):
    """Which destinations the records of a type go to, as the part `takes_type` of queries has it."""

    type: str
    named: list[str] | None
    kinds: list[str]


def has_place(kind: str, resource: Resource | None) -> bool:
    """Whether records of the type have a place at destinations of the kind; None: a type that a tenant declares."""
    return KINDS[kind].takes_any or (resource is not None and kind in resource.objects)


def reach_of(resource: Resource) -> Reach:
    kinds = [kind for kind in KINDS if has_place(kind, resource)]
    return Reach(resource.name, list(resource.destinations) or None, kinds)


def paths_of_one_type(options: Mapping[str, Any]) -> dict[str, str]:
    """The paths, tables and topics among options that do not contain the name of a type."""
    found = {name: options.get(name) for name in ("path", "read_path", "archive_path", "table", "topic")}
    for name in ("update", "delete", "read"):
        called = options.get(name)
        found[name] = called.get("path") if isinstance(called, Mapping) else None
    return {name: path for name, path in found.items() if path is not None and "{type}" not in path}


def options_for(resource: Resource, destination: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the destination, with what the type says of it. Where it says something, paths and tables of the
    destination that are for one type are not for this one."""
    own = resource.destinations.get(destination)
    options = resolve_preset(options)
    if own is None:
        return options
    strange = () if resource.type_id == CONTACTS.type_id else paths_of_one_type(options)
    return {name: value for name, value in options.items() if name not in strange} | dict(own)


def reads_back(kind: str, options: Mapping[str, Any]) -> bool:
    """Whether a destination shows what it holds; options as `options_for` returns them."""
    if kind == HttpOptions.KIND:
        return any(options.get(name) is not None for name in ("read", "read_path"))
    return kind not in KINDS or KINDS[kind].reads_back


def names_of(kind: str) -> set[str]:
    return set(KINDS[kind].options.__struct_fields__) if kind in KINDS else set()


def parse(kind: str, options: Mapping[str, Any]) -> Options:
    """Options of a destination that is to be added.
    Raises `OptionsError`: no such kind, an unknown option, or a value that cannot be used."""
    if kind not in KINDS:
        raise OptionsError(f"{kind!r} is not a kind of destination; there are: {', '.join(KINDS)}.")
    return convert(KINDS[kind].options, resolve_preset(options) if kind == HttpOptions.KIND else options, kind)


def check_match(options: Options, types: Sequence[Resource]) -> None:
    """Raises `OptionsError`: records of these types, which can go there, cannot be looked for as `match_on` says."""
    if isinstance(options, HttpOptions) and options.match_on and options.read_path is None:
        raise OptionsError(f"options.match_on: {LOOKED_FOR_BY_READ}")
    if isinstance(options, MatchingOptions):
        options.check_match(types)


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
