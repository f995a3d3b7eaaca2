"""`tranche push FILE`."""

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import rich_click as click
from click.core import ParameterSource
from rich.console import Console

from app.cli.client import journal
from app.cli.client.api_client import ApiClient
from app.cli.client.connection import open_api, warn
from app.cli.client.errors import ClientError, RefusedError, UsageError
from app.cli.client.failed_file import check_target, write_failed
from app.cli.client.jobs import find_waits
from app.cli.client.journal import Journal
from app.cli.client.outcomes import Outcomes
from app.cli.client.progress import Display, choose_display
from app.cli.client.push import PushOptions, push
from app.cli.client.source_file import CsvFile, FileOptions, Format, SourceFile, Survey, open_file
from app.cli.client.summary import Report, as_document, print_summary
from app.cli.command import connection_options, repeated, run_command, timeout_option
from app.cli.output import json_option, show, show_table, wants_json
from app.cli.records import find_type
from app.vocabulary.states import Consistency

_HELP = """\
Import the records of FILE (CSV, XLSX, NDJSON or JSON; `-` reads standard input) and report the result of every row.

The first line of a CSV file, or the first row of a workbook's sheet, names the columns. The fields of the type (of
contacts: id, email, first_name, last_name, phone, company), deleted, if_version and source_version are recognized
whatever their case, spaces, dashes and underscores; every other column becomes an attribute of that name, unless --map
or --ignore says otherwise; --preview shows it. So are usual names of the fields in English, German, French and Spanish
(Vorname, Téléphone), where only one column has such a name. An empty cell leaves the field as it is. --map "Email=id"
takes a column as the id and the e-mail address.

The file goes to the server as it is, in one request, however long it is. Small files are answered at once, large ones
are processed afterwards, and both are followed to the end. The rows are one batch for --on-duplicate; with --atomic all
of them are applied or none.

Rows that the server marks `retry` are sent again, not before the time it says. A push that was killed goes on where it
stopped when the same command is run again, and nothing is done twice; once a push has ended, pushing the same file is
a new import. (The memory of a begun push is a small file in $XDG_STATE_HOME/tranche or ~/.local/state/tranche.)

--failed-out gets the rows that failed or still wait, as they were sent. CSV, also for a workbook: the columns
error_code, error_detail and retry_after_seconds come first, and are skipped when the file is fixed and pushed. NDJSON
and JSON: one item a line, with the reasons in PATH.reasons.ndjson. The file is replaced in one step at the end; when
nothing failed it is left with the header alone (NDJSON: empty).

Exit code: 0 all ok; 1 some rows failed for good; 2 usage, authentication or a refused request; 3 timed out with
work left (the same command goes on); 130 interrupted.
"""


_SHOWN: Final = 20
"""Columns named at the beginning of a push."""


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    file: str
    type: str
    url: str | None
    key: str | None
    read: FileOptions
    wait: bool
    dry_run: bool
    on_duplicate: str
    consistency: str
    atomic: bool
    failed_out: str | None
    run: str | None
    fresh: bool
    quiet: bool


@click.command("push", help=_HELP, context_settings={"max_content_width": 110})
@click.argument("file")
@connection_options
@repeated("--map", "mapping", '"COLUMN=FIELD"', "Which column is which field; repeatable.")
@click.option("--type", default="contacts", show_default=True, help="Of the records, such as companies.")
@repeated("--ignore", "ignored", "COLUMN", "Leave this column out; repeatable.")
@click.option("--preview", is_flag=True, help="Show which column is which field, and send nothing.")
@click.option("--format", type=click.Choice([f.value for f in Format]), help="Default: by name and content.")
@click.option("--encoding", help="Of the file, for example windows-1252.  [default: byte order mark, else UTF-8]")
@click.option("--delimiter", help="Of a CSV file: , ; | or tab.  [default: found in the header]")
@click.option("--sheet", help="Of a workbook, by name or number.  [default: the first visible one with contents]")
@click.option("--decimal", type=click.Choice([".", ","]), help="Sign before the fraction of a number in a CSV file.")
@click.option("--date-format", metavar="FORM", help="How a CSV file writes dates, such as DD.MM.YYYY.")
@click.option(
    "--on-duplicate",
    type=click.Choice(["fail", "last_wins"]),
    default="fail",
    show_default=True,
    help="When the file has differing rows with one id.",
)
@click.option(
    "--consistency",
    type=click.Choice([word.value for word in Consistency]),
    default=Consistency.NONE.value,
    show_default=True,
    help="all_destinations: a row that one destination finally refuses is undone at the others, and here.",
)
@click.option("--atomic", is_flag=True, help="All rows or none.")
@click.option("--dry-run", is_flag=True, help="Have everything checked and nothing written.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the destinations have the rows.")
@timeout_option("Longest time without an answer while sending; then longest wait for `retry` rows and destinations.")
@click.option("--failed-out", metavar="PATH", help="Write the rows that did not make it to this file.")
@click.option("--run", metavar="NAME", help="Identity of this import, instead of one kept by the client.")
@click.option("--fresh", is_flag=True, help="Forget that an earlier push of this file was cut off.")
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
@click.option("--mode", hidden=True, help="Without effect: the file always goes as one request.")
@click.option("--batch-size", hidden=True, help="Without effect, as --mode.")
@click.option("--concurrency", hidden=True, help="Without effect, as --mode.")
@click.pass_context
def push_command(
    context: click.Context, /, file: str, url: str | None, key: str | None, preview: bool, **given: Any
) -> None:
    async def work() -> int:
        for name in ("mode", "batch_size", "concurrency"):
            if given.pop(name) is not None and not given["quiet"]:
                warn(f"--{name.replace('_', '-')} has no effect: the file goes to the server as one request")
        read = msgspec.convert({name: given.pop(name) for name in FileOptions.__struct_fields__}, FileOptions)
        if preview:
            with _on_disk(file) as path:
                _print_preview(open_file(path, read, await find_type(given["type"], url, key), name=file))
            return 0
        api = open_api(url, key, given.pop("seconds"))
        if context.get_parameter_source("seconds") is ParameterSource.COMMANDLINE:
            api.first_contact = None
        return await _push(_Request(file=file, url=url, key=key, read=read, **given), api)

    hint = "Run the same command again to resume; nothing is sent twice."
    context.exit(run_command("push", work, interrupted=hint))


async def _push(request: _Request, api: ApiClient) -> int:
    began = api.clock.now()
    resource = await find_type(request.type, request.url, request.key)
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(_on_disk(request.file))
        source = open_file(path, request.read, resource, name=request.file)
        if request.failed_out:
            check_target(request.failed_out, source)
        silent = request.quiet or (wants_json() and not sys.stderr.isatty())
        display = choose_display(api.clock, silent=silent)
        api.notify = display.say
        # The file and everything that shapes the request made of it.
        facts = {"url": api.url, "read": request.read, "query": _query(request), "run": request.run}
        if request.type != "contacts":
            facts["type"] = request.type
        fingerprint = "" if request.dry_run else journal.fingerprint(path, facts)
        book = _open_journal(request, fingerprint, display, stack) if fingerprint else None
        options = PushOptions(
            type=request.type,
            run=book.entry.run if book else secrets.token_hex(16),
            fingerprint=fingerprint,
            params=_query(request),
            await_effects=request.wait,
            atomic=request.atomic,
            dry_run=request.dry_run,
        )
        resumed = book is not None and book.resumed
        if resumed:
            api.first_contact = None  # it was there when the push began
        outcomes = Outcomes()
        api.deadline.renew()
        async with api:
            with display:
                _show_columns(source, display)
                try:
                    ending = await push(api, source, options, outcomes, display)
                except RefusedError:
                    if book is not None and not resumed and not outcomes.jobs:
                        book.finish()  # nothing was begun
                    raise
            report = Report(
                file=request.file,
                run=options.run,
                resumed=resumed,
                dry_run=request.dry_run,
                ending=ending,
                outcomes=outcomes,
                survey=_survey(source, outcomes, ending.items),
            )
            if request.failed_out is not None:
                target = request.failed_out
                try:
                    report.failed_rows = await write_failed(api, target, source, outcomes)
                except OSError as error:
                    again = f"{target} could not be written: {error.strerror}; run the same command again"
                    raise ClientError(again) from error
                report.failed_out = str(Path(target))
            if book is not None and (ending.exit_code in (0, 1) or ending.over):
                book.finish()
            report.elapsed = api.clock.now() - began
            _print_report(request, report)
            if ending.exit_code == 3 and not wants_json():
                with contextlib.suppress(ClientError):  # whatever hinders the question is no news here
                    for line in await find_waits(api, outcomes.effects(), outcomes.waits()):
                        warn(line)
        return ending.exit_code


def _survey(source: SourceFile, outcomes: Outcomes, items: int | None) -> Survey:
    """The lines of the rows that are shown; none if the file is no longer what the server read."""
    shown = {
        row for cluster in outcomes.clusters() for reason in (cluster.total, *cluster.reasons) for row in reason.rows
    }
    found = source.survey(shown)
    if items is not None and found.rows != items:
        found.lines = {}
    return found


def _query(request: _Request) -> list[tuple[str, str]]:
    query: list[tuple[str, str]] = []
    if request.on_duplicate != "fail":
        query.append(("on_duplicate", request.on_duplicate))
    if request.consistency != Consistency.NONE:
        query.append(("consistency", request.consistency))
    query += [(name, "true") for name in ("atomic", "dry_run") if getattr(request, name)]
    return query


def _print_preview(source: SourceFile) -> None:
    """Print what each column of the file becomes, with its first value.

    Raises:
        UsageError: it has no columns.
    """
    if not isinstance(source, CsvFile):
        raise UsageError("--preview is for CSV and workbooks: JSON and NDJSON name their fields themselves")
    seen = [
        next((row[i] for row in source.sample if i < len(row) and row[i].strip()), "")
        for i in range(len(source.columns.header))
    ]
    columns = [(*meant, value) for meant, value in zip(source.columns.describe(), seen, strict=True)]
    described = [{"column": n, "becomes": m, "example": v} for n, m, v in columns]
    document = {"file": source.name, "columns": described}
    show_table(document, ("column", "becomes", "first value"), columns)
    if not wants_json():
        print("nothing was sent; --map and --ignore change what a column becomes")


def _show_columns(source: SourceFile, display: Display) -> None:
    if not isinstance(source, CsvFile):
        return
    meanings = source.columns.describe()
    fields = [f"{name} → {meaning}" for name, meaning in meanings if not meaning.startswith(("attribute ", "ignored"))]
    display.say("columns: " + ", ".join(fields))
    for title, word in (("attributes", "attribute "), ("ignored", "ignored")):
        names = [name for name, meaning in meanings if meaning.startswith(word)]
        if names:
            rest = f", … ({len(names)})" if len(names) > _SHOWN else ""
            display.say(f"{title}: {', '.join(names[:_SHOWN])}{rest}")


@contextlib.contextmanager
def _on_disk(file: str) -> Iterator[str]:
    """A path that can be read more than once: standard input or a pipe is copied to a temporary file."""
    if file != "-" and not Path(file).is_fifo():
        yield file
        return
    with tempfile.NamedTemporaryFile(prefix="tranche-stdin-") as copy:
        with contextlib.nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb") as stream:
            shutil.copyfileobj(stream, copy)
        copy.flush()
        yield copy.name


def _open_journal(request: _Request, fingerprint: str, display: Display, stack: contextlib.ExitStack) -> Journal | None:
    """The journal, or none where its folder cannot be written: better an import that cannot be resumed than none.

    A made-up identity is not derived from the file then, because a second import of it, meant as one, would only get
    the first one's answer.
    """
    folder = journal.state_dir(os.environ)
    try:
        book = stack.enter_context(
            Journal(folder, fingerprint, file=request.file, name=request.run, fresh=request.fresh)
        )
    except OSError as error:
        display.say(f"cannot write to {folder} ({error.strerror}): if this push is cut off it cannot be resumed")
        return None
    if book.resumed:
        display.say(f"resuming the push of {request.file} that began at {book.entry.started} (--fresh starts over)")
    return book


def _print_report(request: _Request, report: Report) -> None:
    ending = report.ending
    if wants_json():
        show(as_document(report), ())
    elif not request.quiet:
        print_summary(report, Console())
        counts = report.outcomes.effects().values()
        if request.consistency != Consistency.NONE and any(c.get("failed") or c.get("dead") for c in counts):
            print(
                "what a destination refused is undone everywhere: `tranche jobs show` names the job that does it as "
                "compensated_by"
            )
    if ending.over:
        warn(f"tranche push: {ending.trouble}")
