"""The account at the end of a push, for people and for programs."""

from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.client.outcomes import Outcomes, Reason
from app.cli.client.progress import clean, counted
from app.cli.client.source_file import Survey
from app.vocabulary.states import WarningCode

_LINES: Final = 5
_WARNINGS: Final[dict[str, str]] = {
    WarningCode.TRIMMED: "white space around the value was left out",
    WarningCode.FORMULA: "a spreadsheet's formula was used as it is; write the plain value",
    WarningCode.NUMBER_FORMAT: "a number that a spreadsheet shortened; format the column as text",
}


class Ending(msgspec.Struct, kw_only=True):
    exit_code: int
    trouble: str = ""
    over: bool = False
    """Whether the server ended it for good, before all rows were decided."""
    not_processed: int = 0
    """Rows that nothing was done with, because the job was canceled or failed."""
    items: int | None = None
    """Rows of the file as the server counted them, once every row has an outcome."""


class Report(msgspec.Struct, kw_only=True):
    file: str
    run: str
    resumed: bool
    dry_run: bool
    ending: Ending
    outcomes: Outcomes
    survey: Survey
    failed_out: str | None = None
    failed_rows: int = 0
    """Rows written to `failed_out`."""
    elapsed: float = 0.0

    def lines(self, rows: list[int]) -> list[int]:
        """The lines of these rows, as far as they are known."""
        return [self.survey.lines[row] for row in rows if row in self.survey.lines]


def as_document(report: Report) -> dict[str, Any]:
    """The `--json` form. `total = succeeded + failed + retry`; rows never sent are in none of them."""
    ending, outcomes = report.ending, report.outcomes
    return {
        "file": report.file,
        "exit_code": ending.exit_code,
        "run": report.run,
        "resumed": report.resumed,
        "dry_run": report.dry_run,
        "complete": ending.exit_code in (0, 1) and not ending.over,
        "all_sent": ending.items is not None,
        "trouble": ending.trouble or None,
        "total": outcomes.total,
        "succeeded": outcomes.ok.total(),
        "failed": outcomes.failed,
        "retry": outcomes.retry,
        "not_processed": ending.not_processed,
        "results": {
            name: outcomes.ok.get(name, 0) for name in ("created", "updated", "deleted", "unchanged", "superseded")
        },
        "blank_rows": report.survey.blank,
        "warnings": [
            {"code": code, "pointer": pointer, "count": len(lines), "lines": lines[:_LINES]}
            for (code, pointer), lines in report.survey.warnings.items()
        ],
        "failures": [
            {
                "destination": c.destination or None,
                "status": c.status,
                "code": c.code,
                "count": c.total.count,
                "lines": report.lines(c.total.rows),
                "detail": c.total.detail,
                "reasons": [{"detail": r.detail, "count": r.count, "lines": report.lines(r.rows)} for r in c.reasons],
            }
            for c in outcomes.clusters()
        ],
        "effects": {
            name: {state: n for state, n in counts.items() if n} for name, counts in outcomes.effects().items()
        },
        "jobs": [
            {"job_id": j.job_id, "status_url": f"/v1/jobs/{j.job_id}", "state": j.state or None, "items": len(j.rows)}
            for j in outcomes.jobs
        ],
        "failed_out": report.failed_out,
        "failed_rows": report.failed_rows,
        "requests": outcomes.requests,
        "replayed": outcomes.replayed,
        "elapsed_seconds": round(report.elapsed, 3),
    }


def print_summary(report: Report, console: Console) -> None:
    """A table of what became of the rows, then what to do next."""
    ending, outcomes = report.ending, report.outcomes
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right")
    table.add_column()
    table.add_row("rows", f"{outcomes.total:,}", _describe_run(report))
    others = {"failed": outcomes.failed, "to send again": outcomes.retry, "not processed": ending.not_processed}
    for name, count in [*sorted(outcomes.ok.items()), *((n, c) for n, c in others.items() if c)]:
        table.add_row(f"  {name}", f"{count:,}", "")
    for cluster in outcomes.clusters():
        place = f"{cluster.destination}: " if cluster.destination else ""
        title, total = f"    {place}{cluster.code}", f"{cluster.total.count:,}"
        for reason in cluster.reasons:
            table.add_row(Text(clean(title)), total, Text(clean(_describe_reason(report, reason))))
            title = total = ""
        more = cluster.total.count - sum(reason.count for reason in cluster.reasons)
        if more:
            table.add_row("", "", f"and {more:,} more with other reasons; --failed-out has all of them")
    for (code, pointer), lines in report.survey.warnings.items():
        what = _WARNINGS.get(code, "see the documentation")
        said = f"{pointer}: {what}; {_name_lines(report, lines[:_LINES], len(lines))}"
        table.add_row(Text(f"  warning {code}"), f"{len(lines):,}", Text(clean(said)))
    for name, counts in sorted(outcomes.effects().items()):
        states = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items()) if count)
        if states:
            table.add_row(Text(clean(name)), "", Text(states))
    console.print(table)
    for hint in _hints(report):
        console.print(Text(clean(hint)), soft_wrap=True)  # a command in it can be copied


def _describe_reason(report: Report, reason: Reason) -> str:
    lines = report.lines(reason.rows)
    return f"{_name_lines(report, lines, reason.count)}: {reason.detail}" if lines else reason.detail


def _name_lines(report: Report, first: list[int], count: int) -> str:
    """`line 7`, `rows 7, 9, …`."""
    return f"{report.survey.unit}{'s' * (count > 1)} {', '.join(map(str, first))}{', …' * (count > len(first))}"


def _describe_run(report: Report) -> Text:
    parts = [f"{report.elapsed:.1f} s"]
    if report.dry_run:
        parts.append("dry run: nothing was written")
    if report.survey.blank:
        parts.append(f"{counted(report.survey.blank, 'blank row')} skipped")
    if report.outcomes.replayed:
        parts.append("the server had the file from the earlier run")
    return Text(", ".join(parts))


def _hints(report: Report) -> list[str]:
    ending, outcomes = report.ending, report.outcomes
    hints = []
    jobs = [job.job_id for job in outcomes.jobs]
    if len(jobs) == 1:
        hints.append(f"job {jobs[0]}")
    elif jobs:
        hints.append(f"jobs {jobs[0]} … {jobs[-1]} ({len(jobs):,}); tranche jobs list shows them")
    if report.failed_rows and report.failed_out:
        hints.append(
            f"{counted(report.failed_rows, 'row')} with what is wrong: {report.failed_out}. Fix and push that file"
        )
    elif outcomes.failed and not report.failed_out:
        hints.append("--failed-out FILE writes the failed rows to a file that can be fixed and pushed")
    if not (outcomes.total or ending.not_processed or ending.trouble):
        hints.append("the file has no rows: nothing was imported")
    if ending.trouble and not ending.over:
        hints.append(f"stopped: {ending.trouble}")
    if ending.exit_code == 3:
        unfinished = [job.job_id for job in outcomes.open_jobs()]
        if unfinished:
            hints.append(f"destinations are still being served: tranche jobs wait {unfinished[0]}")
        hints.append("run the same command again to resume; nothing is sent twice")
    return hints
