"""`tranche jobs list | show | wait | cancel | undo`; `items` and `retry` have files of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import rich_click as click

from app.cli.api_command import api_command, limit_option, quiet_option, timeout_option, wait_option
from app.cli.client.api_client import ApiClient
from app.cli.client.jobs import JobWatch, exit_code, find_waits, is_finished, job_path
from app.cli.client.progress import counted
from app.cli.client.wire import Job, read
from app.cli.job_items import items_command
from app.cli.job_retry import describe_merged, retry_command, wait_for_job
from app.cli.output import print_fields, print_rows, show


@click.group("jobs")
def jobs_group() -> None:
    """Imports: every push makes a job, and one more for each time that rows are sent again."""


jobs_group.add_command(items_command)
jobs_group.add_command(retry_command)


@api_command("jobs list", jobs_group, rows=True)
@limit_option(20)
async def list_jobs(api: ApiClient, limit: int, as_json: bool) -> None:
    """Jobs, newest first."""
    columns = ("job", "kind", "state", "items", "ok", "failed", "retry", "created")
    await print_rows(api.list("/v1/jobs", "jobs"), limit, columns, _describe, as_json=as_json, whole="job")


def _describe(job: dict[str, Any]) -> list[object]:
    summary = job.get("summary") or {}
    counts = [summary.get(name) for name in ("total", "succeeded", "failed", "retry")]
    dry = (job.get("options") or {}).get("dry_run")
    kind = f"{job.get('kind')}, dry run" if dry else job.get("kind")
    return [job.get("job_id"), kind, job.get("state"), *counts, job.get("created_at")]


@api_command("jobs show", jobs_group)
@click.argument("job")
async def show_job(api: ApiClient, job: str, as_json: bool) -> None:
    """One job: its state, its items by outcome, and their effects at the destinations."""
    watch = JobWatch(api, job)
    found = await watch.poll()
    _print_job(watch, as_json)
    if not as_json and not is_finished(found):
        show(None, await find_waits(api, found.effects), as_json=False)


@api_command("jobs wait", jobs_group)
@click.argument("job")
@timeout_option()
@quiet_option
async def wait_for(api: ApiClient, job: str, seconds: float, as_json: bool, quiet: bool) -> int:
    """Wait until a job is finished. Exit code: 0 completed, 1 with failures or not at all, 3 still running."""
    watch = await wait_for_job(JobWatch(api, job), seconds, silent=quiet or as_json)
    _print_job(watch, as_json)
    return exit_code(watch.job)


@api_command("jobs cancel", jobs_group)
@click.argument("job")
async def cancel(api: ApiClient, job: str, as_json: bool) -> None:
    """Stop an import. Applied items remain and are delivered; the rest is not processed."""
    await api.ask("POST", job_path(job, "/cancel"))
    watch = JobWatch(api, job)
    found = await watch.poll()
    show(watch.body, [_describe_canceled(found)], as_json=as_json)


def _describe_canceled(job: Job) -> str:
    counts = job.summary
    if not job.processed:
        return f"job {job.job_id} is {job.state}: nothing of it was applied"
    return (
        f"job {job.job_id} is {job.state}: what was applied stays ({counted(counts.succeeded, 'item')}); "
        f"{counts.failed + counts.retry:,} failed, {job.not_processed:,} not processed"
    )


@api_command("jobs undo", jobs_group)
@click.argument("job")
@wait_option
@timeout_option()
@quiet_option
async def undo(api: ApiClient, job: str, wait: bool, seconds: float, as_json: bool, quiet: bool) -> int:
    """Undo a job: restore the earlier state of each record, unless somebody changed it since.

    No history is deleted, and a repeated request undoes once; to redo the changes, undo the undo job.
    Exit code with --wait: 0 all restored, 1 some records were left alone or a destination refused, 3 still running.
    """
    body = await api.ask("POST", job_path(job, "/undo"))
    found = read(body, Job, api.url)
    if wait:
        watch = await wait_for_job(JobWatch(api, found.job_id), seconds, silent=quiet or as_json)
        found, body = watch.job, watch.body
    show(body, [_describe_undone(job, found)], as_json=as_json)
    return exit_code(found) if wait else 0


def _describe_undone(job: str, undo: Job) -> str:
    name = undo.job_id
    if not is_finished(undo):
        return f"job {name} undoes job {job} and is {undo.state}; `tranche jobs wait {name}`"
    back = undo.results.get("updated", 0)
    parts = [f"{counted(back, 'record')} restored"]
    if undo.results.get("unchanged"):
        parts.append(f"{undo.results['unchanged']:,} had been undone before")
    if undo.summary.failed:
        parts.append(
            f"{undo.summary.failed:,} had been changed since and were left as they are "
            f"(`tranche jobs items {name} --status failed` shows by whom)"
        )
    refused = sum(counts.get("failed", 0) + counts.get("dead", 0) for counts in undo.effects.values())
    if refused:
        parts.append(f"{refused:,} could not be restored at a destination (see its dead letters)")
    if undo.not_restored:
        places = ", ".join(f"{at}: {count:,}" for at, count in undo.not_restored.items())
        parts.append(
            f"of some, fields or the record were left as they are at a destination ({places}), because what was there "
            f"before is not known (`tranche jobs items {name}` names the fields)"
        )
    if undo.error is not None:
        parts.append(undo.error.detail)
    return f"job {job} is undone by job {name}: " + "; ".join(parts)


def _print_job(watch: JobWatch, as_json: bool) -> None:
    if not as_json:
        print_fields(_fields(msgspec.json.decode(watch.body)))
    show(watch.body, describe_merged(watch.job), as_json=as_json)


def _fields(job: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in job.items():
        if not (name.endswith("_url") or name == "merged" or value in (None, {}, [])):
            yield name, _flatten(value)


def _flatten(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(
            f"{name}: {{{_flatten(inner)}}}" if isinstance(inner, Mapping) else f"{name} {_flatten(inner)}"
            for name, inner in value.items()
            if inner not in (0, None, {}, [])
        )
    if isinstance(value, list):
        return " | ".join(_flatten(inner) for inner in value)
    return str(value)
