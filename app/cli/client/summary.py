"""The account at the end of a push, for people and for programs."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.client.progress import clean, counted
from app.cli.client.results import Reason, Results
from app.domain.outcomes import WarningCode

_LINES: Final = 5
_WARNINGS: Final[dict[str, str]] = {
    WarningCode.TRIMMED: "white space around the value was left out",
    WarningCode.FORMULA: "a spreadsheet's formula was taken as it stands; write the bare value",
    WarningCode.NUMBER_FORMAT: "a number that a spreadsheet shortened; format the column as text",
}


class Outcome(msgspec.Struct, kw_only=True):
    """How a push ended."""

    exit_code: int
    file: str
    run: str
    resumed: bool = False
    dry_run: bool = False
    mode: str = "batch"
    over: bool = False
    """Whether the server ended it for good, before all rows were decided."""
    not_processed: int = 0
    """Rows that nothing was done with, because the job was canceled or failed."""
    all_sent: bool = True
    """Whether every row of the file got an answer or waits to be sent again."""
    trouble: str = ""
    failed_out: str | None = None
    failed_rows: int = 0
    """Rows written to `failed_out`."""
    blank: int = 0
    warnings: dict[tuple[str, str], list[int]] = {}
    """Lines of rows that were taken with a remark, by its code and the place in the item."""
    elapsed: float = 0.0


def as_document(outcome: Outcome, results: Results) -> dict[str, Any]:
    """The `--json` form. `total = succeeded + failed + retry`; rows never sent are in none of them."""
    return {
        "file": outcome.file,
        "exit_code": outcome.exit_code,
        "mode": outcome.mode,
        "run": outcome.run,
        "resumed": outcome.resumed,
        "dry_run": outcome.dry_run,
        "complete": outcome.exit_code in (0, 1) and not outcome.over,
        "all_sent": outcome.all_sent,
        "trouble": outcome.trouble or None,
        "total": results.decided + results.retry,
        "succeeded": results.ok.total(),
        "failed": results.failed,
        "retry": results.retry,
        "not_processed": outcome.not_processed,
        "results": {
            name: results.ok.get(name, 0) for name in ("created", "updated", "unchanged", "superseded")
        },
        "blank_rows": outcome.blank,
        "warnings": [
            {"code": code, "pointer": pointer, "count": len(lines), "lines": lines[:_LINES]}
            for (code, pointer), lines in outcome.warnings.items()
        ],
        "failures": [
            {
                "destination": c.destination or None,
                "status": c.status,
                "code": c.code,
                "count": c.count,
                "lines": c.lines,
                "detail": c.detail,
                "reasons": [{"detail": r.detail, "count": r.count, "lines": r.lines} for r in c.reasons],
            }
            for c in results.clusters()
        ],
        "effects": {
            name: {state: n for state, n in counts.items() if n} for name, counts in results.effects().items()
        },
        "jobs": [
            {
                "job_id": j.job_id,
                "status_url": f"/v1/jobs/{j.job_id}",
                "state": j.state or None,
                "items": len(j.numbers),
            }
            for j in results.jobs
        ],
        "failed_out": outcome.failed_out,
        "failed_rows": outcome.failed_rows,
        "requests": results.requests,
        "replayed": results.replayed,
        "elapsed_seconds": round(outcome.elapsed, 3),
    }


def print_summary(outcome: Outcome, results: Results, console: Console) -> None:
    """A table of what became of the rows, then what to do next."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right")
    table.add_column()
    table.add_row("rows", f"{results.decided + results.retry:,}", _describe_run(outcome, results))
    for name, count in sorted(results.ok.items()):
        table.add_row(f"  {name}", f"{count:,}", "")
    if results.failed:
        table.add_row("  failed", f"{results.failed:,}", "")
    if results.retry:
        table.add_row("  to send again", f"{results.retry:,}", "")
    if outcome.not_processed:
        table.add_row("  not processed", f"{outcome.not_processed:,}", "")
    for cluster in results.clusters():
        place = f"{cluster.destination}: " if cluster.destination else ""
        title, total = f"    {place}{cluster.code}", f"{cluster.count:,}"
        for reason in cluster.reasons:
            table.add_row(Text(clean(title)), total, Text(clean(_describe_reason(reason))))
            title = total = ""
        if cluster.more:
            table.add_row(
                "", "", f"and {cluster.more:,} more with other reasons; --failed-out has all of them"
            )
    for (code, pointer), lines in outcome.warnings.items():
        shown = ", ".join(map(str, lines[:_LINES])) + (", …" if len(lines) > _LINES else "")
        told = (
            f"{pointer}: {_WARNINGS.get(code, 'see the documentation')}; line{'s' * (len(lines) > 1)} {shown}"
        )
        table.add_row(Text(f"  warning {code}"), f"{len(lines):,}", Text(clean(told)))
    for name, counts in sorted(results.effects().items()):
        states = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items()) if count)
        if states:
            table.add_row(Text(clean(name)), "", Text(states))
    console.print(table)
    for hint in _hints(outcome, results):
        console.print(Text(clean(hint)), soft_wrap=True)  # a command in it can be copied


def _describe_reason(reason: Reason) -> str:
    lines = ", ".join(map(str, reason.lines)) + (", …" if reason.count > len(reason.lines) else "")
    return f"{'line' if reason.count == 1 else 'lines'} {lines}: {reason.detail}"


def _describe_run(outcome: Outcome, results: Results) -> Text:
    parts = [f"{outcome.elapsed:.1f} s"]
    if outcome.dry_run:
        parts.append("dry run: nothing was written")
    if outcome.blank:
        parts.append(f"{counted(outcome.blank, 'blank row')} skipped")
    if results.replayed:
        parts.append(
            f"{results.replayed:,} of {counted(results.requests, 'request')} had been answered before"
        )
    return Text(", ".join(parts))


def _hints(outcome: Outcome, results: Results) -> list[str]:
    hints = []
    jobs = [job.job_id for job in results.jobs]
    if len(jobs) == 1:
        hints.append(f"job {jobs[0]}")
    elif jobs:
        hints.append(f"jobs {jobs[0]} … {jobs[-1]} ({len(jobs):,}); tranche jobs list shows them")
    if outcome.failed_rows and outcome.failed_out:
        hints.append(
            f"{counted(outcome.failed_rows, 'row')} with what is wrong: {outcome.failed_out}. Fix and push that file"
        )
    elif results.failed and not outcome.failed_out:
        hints.append("--failed-out FILE writes the failed rows to a file that can be fixed and pushed")
    if not (results.decided or results.retry or outcome.not_processed or outcome.trouble):
        hints.append("the file has no rows: nothing was imported")
    if outcome.trouble and not outcome.over:
        hints.append(f"stopped: {outcome.trouble}")
    if outcome.exit_code == 3:
        unfinished = [job.job_id for job in results.open_jobs()]
        if unfinished:
            hints.append(f"destinations are still being served: tranche jobs wait {unfinished[0]}")
        hints.append("run the same command again to go on where it stopped; nothing is sent twice")
    return hints
