"""`tranche dead-letters list | show | clusters | replay | drop | settle`: the API's routes from the shell."""

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import rich_click as click

from app.cli.client.api_client import ApiClient, given
from app.cli.client.errors import UsageError
from app.cli.client.progress import counted
from app.cli.command import api_command, limit_option, options, timeout_option, wait_option
from app.cli.jobs import describe_skipped, follow_resend
from app.cli.output import show, show_rows, show_table, wants_json

_PATH: Final = "/v1/dead-letters"


@click.group("dead-letters")
def dead_letters_group() -> None:
    """Items that are no longer tried, and records that an undo left: inspect, replay, drop or settle them."""


_filter_options: Final = options(
    click.option("--kind", type=click.Choice(["delivery", "undo"]), help="Only of deliveries, or of undos."),
    click.option("--destination", help="Only at this destination."),
    click.option("--error-code", help="Only with this code."),
    click.option("--state", type=click.Choice(["failed", "dead"]), help="Refused for good, or no longer tried."),
    click.option("--job", "job_id", help="Only of this job."),
    click.option("--record", "record_id", help="Only of this record."),
)
_choice_options: Final = options(
    click.argument("ids", nargs=-1, type=click.IntRange(min=1)),
    _filter_options,
    click.option("--all", "everything", is_flag=True, help="Every open dead letter of deliveries."),
)
"""Which dead letters to decide about."""


def _choose(ids: tuple[int, ...], everything: bool, filters: Mapping[str, str | None]) -> dict[str, Any]:
    """The part of a request that selects dead letters."""
    asked = given(filters)
    if ids and (asked or everything):
        raise UsageError("give ids or a filter, not both")
    if ids:
        return {"ids": ids}
    if not asked and not everything:
        raise UsageError("give ids, a filter such as --destination or --job, or --all")
    return {"filter": asked} if asked else {"all": True}


@api_command(dead_letters_group, "list", rows=True)
@_filter_options
@click.option(
    "--resolution", default="open", show_default=True, help="open, replayed, delivered, dropped, superseded or any."
)
@limit_option(50)
async def list_dead_letters(api: ApiClient, resolution: str, limit: int, **filters: str | None) -> None:
    """Dead letters, newest first."""
    found = api.list(_PATH, "dead_letters", given(filters) | {"resolution": resolution})
    columns = ("id", "kind", "destination", "record", "state", "code", "detail", "created", "end")
    names = ("id", "kind", "destination", "record_id", "state", "error_code", "detail", "created_at", "resolution")
    await show_rows(found, limit, columns, lambda row: [*map(row.get, names)], whole="id")


@api_command(dead_letters_group, "show")
@click.argument("dead_letter", type=click.IntRange(min=1))
async def show_dead_letter(api: ApiClient, dead_letter: int) -> None:
    """One dead letter: its reason, attempts with times and answers, history, and choices."""
    body = await api.ask("GET", f"{_PATH}/{dead_letter}")
    show(body, _describe_one(msgspec.json.decode(body)))


def _describe_one(found: dict[str, Any]) -> Iterator[str]:
    undone = found["undone"]
    what = f"record {found['record_id']} version {found['version']}"
    what += " could not be taken back" if undone else f" at {found['destination']} is {found['state']}"
    yield f"dead letter {found['id']}: {what} since {found['created_at']}"
    yield f"reason: {found['error_code']}: {found['detail']} ({counted(found['attempts'], 'attempt')})"
    by_job = f"{found['job_kind'] or 'former'} job {found['job_id']}, item {found['item_index']}"
    yield f"{by_job}; it began with job {found['root_job_id']}"
    if undone:
        by = undone["changed_by"]
        yield f"undone: job {undone['job_id']}, item {undone['item_index']}"
        yield (
            f"changed since by {by['kind']} job {by['job_id']}, item {by['item_index']} (key {by['key_id']}, request "
            f"{by['request_id']}): version {by['version']}"
        )
    for name, values in found["headers"].items():
        yield f"{name}: {', '.join(values)}"
    for call in found["calls"]:
        status = call["status"] or "no answer"
        yield (
            f"  {call['sent_at']} {call['asked']}, attempt {call['attempt']}: {status} after "
            f"{call['milliseconds']} ms: {call['detail']}"
        )
    if len(found["chain"]) > 1:
        yield "its chain:"
        for link in found["chain"]:
            end = f"{link['resolution']} at {link['resolved_at']}" if link["resolution"] else "open"
            yield f"  {link['id']} {link['created_at']} {link['error_code']}: {end}"
    payload = found["payload"]
    absent = "erased" if undone else "deletion"
    shown = absent if payload is None else msgspec.json.encode(payload).decode()
    yield f"{'a replay restores' if undone else 'payload now'}: {shown}"
    if found["resolution"]:
        why = f": {found['note']}" if found["note"] else ""
        yield f"{found['resolution']} by {found['resolved_by']} at {found['resolved_at']}{why}"
    if found["choices"]:
        yield f"choices: {', '.join(found['choices'])}"


@api_command(dead_letters_group, "clusters")
@_filter_options
async def clusters(api: ApiClient, **filters: str | None) -> None:
    """Open dead letters by destination and code, the most frequent first."""
    _show_clusters((await api.call("GET", f"{_PATH}/clusters", params=given(filters))).body)


def _show_clusters(body: bytes) -> None:
    found = msgspec.json.decode(body)
    columns = ("kind", "destination", "code", "count", "oldest", "newest", "samples", "detail")
    show_table(body, columns, map(_describe_cluster, found["clusters"]))
    if not wants_json():
        show(None, describe_skipped(found.get("skipped", [])))


def _describe_cluster(cluster: dict[str, Any]) -> list[object]:
    counts = [f"{cluster['count']:,}", cluster["oldest"], cluster["newest"]]
    samples = ", ".join(map(str, cluster["samples"]))
    return [cluster["kind"], cluster["destination"], cluster["error_code"], *counts, samples, cluster["detail"]]


@api_command(dead_letters_group, "replay")
@_choice_options
@click.option("--preview", is_flag=True, help="Show what would be claimed, and change nothing.")
@click.option("--rate", type=click.FloatRange(min=1), help="Items per second at a destination.")
@wait_option
@timeout_option()
async def replay(
    api: ApiClient,
    ids: tuple[int, ...],
    everything: bool,
    preview: bool,
    rate: float | None,
    wait: bool,
    seconds: float,
    **filters: str | None,
) -> int:
    """Send dead letters again, by id or by filter. None is replayed twice.

    Those of an undo (by id, or with --kind undo) restore the record although somebody changed it since.
    """
    wanted = _choose(ids, everything, filters)
    if preview:
        _show_clusters(await api.ask("POST", f"{_PATH}/replay", wanted | {"preview": True}))
        return 0
    answer = await api.ask("POST", f"{_PATH}/replay", wanted | ({} if rate is None else {"rate": rate}))
    return await follow_resend(api, answer, wait=wait, seconds=seconds, again="replay")


@api_command(dead_letters_group, "drop")
@_choice_options
@click.option("--reason", required=True, help="Why; the audit log keeps it.")
async def drop(api: ApiClient, ids: tuple[int, ...], everything: bool, reason: str, **filters: str | None) -> None:
    """Drop dead letters that are not worth sending, or whose record stays as it is. Their history remains."""
    await _resolve(api, "drop", _choose(ids, everything, filters) | {"reason": reason}, "dropped")


@api_command(dead_letters_group, "settle")
@click.argument("ids", nargs=-1, required=True, type=click.IntRange(min=1))
@click.option("--reason", required=True, help="How you know; the audit log keeps it.")
async def settle(api: ApiClient, ids: tuple[int, ...], reason: str) -> None:
    """Confirm that items with OUTCOME_UNKNOWN have arrived."""
    await _resolve(api, "settle", {"ids": ids, "reason": reason}, "settled")


async def _resolve(api: ApiClient, route: str, wanted: dict[str, Any], word: str) -> None:
    body = await api.ask("POST", f"{_PATH}/{route}", wanted)
    show(body, _describe_resolved(msgspec.json.decode(body), word))


def _describe_resolved(done: dict[str, Any], word: str) -> Iterator[str]:
    yield f"{counted(done['decided'], 'dead letter')} {word}"
    if done.get("remaining"):
        yield f"{done['remaining']:,} are left: ask again"
    yield from describe_skipped(done.get("skipped", []))


@api_command(dead_letters_group, "sagas")
async def list_sagas(api: ApiClient) -> None:
    """Undos and compensations that failed for good, the oldest first."""
    found = await api.call("GET", f"{_PATH}/sagas")
    names = ("id", "workflow", "job_id", "undo_job_id", "restored", "conflicts", "not_reached", "failed_at", "detail")
    show_table(
        found.body,
        ("id", "workflow", "job", "undo job", "restored", "conflicts", "not reached", "failed", "detail"),
        ([*map(row.get, names)] for row in msgspec.json.decode(found.body)["sagas"]),
    )


@api_command(dead_letters_group, "retry-saga")
@click.argument("saga", type=click.UUID)
async def retry_saga(api: ApiClient, saga: uuid.UUID) -> None:
    """Have a saga that failed undo the same step again."""
    show(await api.ask("POST", f"{_PATH}/sagas/{saga}/retry"), [f"saga {saga} goes on"])


@api_command(dead_letters_group, "drop-saga")
@click.argument("saga", type=click.UUID)
@click.option("--reason", required=True, help="Why; the audit log keeps it.")
async def drop_saga(api: ApiClient, saga: uuid.UUID, reason: str) -> None:
    """Leave a saga that failed as it is; its job ends as failed."""
    body = await api.ask("POST", f"{_PATH}/sagas/{saga}/drop", {"reason": reason})
    show(body, [f"saga {saga} is dropped"])
