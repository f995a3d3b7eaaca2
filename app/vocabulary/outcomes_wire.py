"""The shapes of an import's answer and how they are put together: pure, so that replaying is comparing bytes."""

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from app.vocabulary.states import Consistency, EffectState, ErrorCode, ItemStatus, Result, WarningCode

_ITEMS: Final = msgspec.Meta(extra_json_schema={"type": "array", "items": {"$ref": "#/components/schemas/ItemOutcome"}})


_Cell = Annotated[
    str, msgspec.Meta(description="Of a workbook: the cell that the pointer is for.", examples=["Sheet1!C7"])
]


class FieldError(msgspec.Struct, frozen=True, gc=False):
    """One fault of an item; `pointer` is a JSON pointer (RFC 6901) into the item, "" for the item itself."""

    code: ErrorCode
    pointer: str
    detail: str
    cell: _Cell | UnsetType = UNSET


class ItemWarning(msgspec.Struct, frozen=True, gc=False):
    """What was noticed about a row of a file that is no error; `pointer` as in `FieldError`."""

    code: WarningCode
    pointer: str
    detail: str
    cell: _Cell | UnsetType = UNSET


class JobOptions(msgspec.Struct, frozen=True):
    atomic: bool = False
    last_wins: bool = False
    dry_run: bool = False
    consistency: Consistency = Consistency.NONE


class JobError(msgspec.Struct, frozen=True):
    """Why a job failed, was canceled, or waits."""

    code: str
    detail: str


_Line = Annotated[
    int,
    msgspec.Meta(description="Of a CSV or NDJSON body: where the item begins, counted from 1; of a workbook: its row."),
]


class ItemOutcome(msgspec.Struct, omit_defaults=True, gc=False):
    """What became of one item here. `retry` means: send it again, not before `retry_after_seconds`."""

    index: int
    id: str | None
    status: ItemStatus
    result: Result | UnsetType = UNSET
    version: int | UnsetType = UNSET
    duplicate_of: int | UnsetType = UNSET
    error_code: ErrorCode | UnsetType = UNSET
    retry_after_seconds: int | UnsetType = UNSET
    errors: list[FieldError] | UnsetType = UNSET
    warnings: list[ItemWarning] | UnsetType = UNSET
    line: _Line | UnsetType = UNSET


class Summary(msgspec.Struct):
    """total = succeeded + failed + retry."""

    total: int
    succeeded: int
    failed: int
    retry: int


class Cluster(msgspec.Struct):
    """Items that are not `ok` for one reason."""

    count: int = 0
    samples: list[int] = []
    """The first indexes, at most `SAMPLES`."""


class ImportAnswer(msgspec.Struct, omit_defaults=True):
    """The body of a 207."""

    job_id: uuid.UUID
    status_url: str
    items_url: str
    summary: Summary
    effects: Mapping[str, EffectState]
    """The state of the database (`db`) and of each destination: `pending` while anything is still open."""
    items: Annotated[msgspec.Raw, _ITEMS]
    dry_run: bool = False


SAMPLES: Final = 5
_encode: Final = msgspec.json.Encoder().encode

JsonObject = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]
"""An object that goes out as it was stored."""


def failed(index: int, record_id: str | None, errors: list[FieldError]) -> ItemOutcome:
    """An item that will fail again unchanged; its first error names it."""
    return ItemOutcome(
        index, record_id, ItemStatus.FAILED, error_code=errors[0].code, retry_after_seconds=0, errors=errors
    )


def retry(index: int, record_id: str | None, code: ErrorCode, seconds: int, detail: str) -> ItemOutcome:
    """An item that nothing was decided about; `seconds` is at least 1."""
    return ItemOutcome(
        index,
        record_id,
        ItemStatus.RETRY,
        error_code=code,
        retry_after_seconds=max(1, seconds),
        errors=[FieldError(code, "", detail)],
    )


def follow(index: int, leader: ItemOutcome) -> ItemOutcome:
    """The outcome of an item that equals the `leader`, which was applied for both."""
    return msgspec.structs.replace(leader, index=index, duplicate_of=leader.index)


def yield_to(index: int, last: ItemOutcome) -> ItemOutcome:
    """The outcome of an item whose id a later one of the batch has as well (`last_wins`)."""
    if last.status is not ItemStatus.OK:
        return follow(index, last)
    return ItemOutcome(index, last.id, ItemStatus.OK, Result.SUPERSEDED, last.version, last.index)


def summarize(items: Sequence[ItemOutcome]) -> Summary:
    statuses = [i.status for i in items]
    return Summary(
        len(statuses),
        statuses.count(ItemStatus.OK),
        statuses.count(ItemStatus.FAILED),
        statuses.count(ItemStatus.RETRY),
    )


def count_results(items: Iterable[ItemOutcome]) -> dict[str, int]:
    counts = Counter(i.result for i in items)
    return {result.value: counts[result] for result in Result if counts[result]}


def count_codes(items: Iterable[ItemOutcome], summary: Summary) -> dict[tuple[str, str], int]:
    """Items by status and error code, which is empty where there is none."""
    counts = {(ItemStatus.OK.value, ""): summary.succeeded} if summary.succeeded else {}
    if summary.succeeded < summary.total:
        bad = Counter((i.status.value, i.error_code) for i in items if i.error_code is not UNSET)
        counts |= {(status, str(code)): count for (status, code), count in bad.items()}
    return counts


def cluster(items: Iterable[ItemOutcome]) -> dict[str, Cluster]:
    """What is not `ok`, by error code."""
    return count_by_code((item.index, item.error_code) for item in items if item.error_code is not UNSET)


def count_by_code(faults: Iterable[tuple[int, str]]) -> dict[str, Cluster]:
    """Items that are not `ok`, each by its index and error code, in the order of their indexes."""
    clusters: dict[str, Cluster] = {}
    for index, code in faults:
        found = clusters.setdefault(code, Cluster())
        found.count += 1
        if len(found.samples) < SAMPLES:
            found.samples.append(index)
    return clusters


_WORST_FIRST: Final = (
    EffectState.PENDING,
    EffectState.UNKNOWN,
    EffectState.RETRY,
    EffectState.DEAD,
    EffectState.FAILED,
    EffectState.OK,
)


def overall(counts: Mapping[str, int]) -> EffectState:
    """One word for a destination: what is still open comes first, then what went wrong."""
    return next((state for state in _WORST_FIRST if counts.get(state)), EffectState.SKIPPED)


def not_ok(items: Iterable[ItemOutcome]) -> list[ItemOutcome]:
    """What `Prefer: return=minimal` lists (RFC 7240)."""
    return [i for i in items if i.status is not ItemStatus.OK]


def job_urls(job_id: uuid.UUID) -> dict[str, str]:
    """Where a job is, by the names that answers give these places."""
    job = f"/v1/jobs/{job_id}"
    return {"status_url": job} | {f"{name}_url": f"{job}/{name}" for name in ("items", "events", "cancel")}


def compose(
    job_id: uuid.UUID, summary: Summary, effects: Mapping[str, EffectState], items: bytes, *, dry_run: bool
) -> bytes:
    """The answer's bytes; `items` come encoded, since they are stored beside it as well."""
    return _encode(
        ImportAnswer(
            job_id=job_id,
            status_url=f"/v1/jobs/{job_id}",
            items_url=f"/v1/jobs/{job_id}/items",
            summary=summary,
            effects=effects,
            items=msgspec.Raw(items),
            dry_run=dry_run,
        )
    )


def encode_items(items: list[ItemOutcome]) -> bytes:
    return _encode(items)


_decode_items: Final = msgspec.json.Decoder(list[ItemOutcome]).decode


def decode_items(data: bytes) -> list[ItemOutcome]:
    return _decode_items(data)


def as_json(value: Any) -> str:
    """JSON text for a `::text::jsonb` parameter."""
    return _encode(value).decode()
