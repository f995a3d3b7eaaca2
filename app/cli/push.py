"""`tranche push FILE`."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import rich_click as click
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.client import journal
from app.cli.client.body import open_body
from app.cli.client.clock import Clock, Patience, SystemClock
from app.cli.client.columns import parse_mapping
from app.cli.client.connection import (
    FIRST_CONTACT,
    Connection,
    connection_options,
    find_connection,
    run_command,
)
from app.cli.client.csv_file import CsvSource
from app.cli.client.errors import ClientError, UsageError
from app.cli.client.failed_file import AnySource, check_target, write_failed
from app.cli.client.file_push import FileOptions, push_file
from app.cli.client.http import Api
from app.cli.client.journal import Journal
from app.cli.client.progress import Bars, Display, Lines, Silence, clean
from app.cli.client.push import PushOptions, push
from app.cli.client.reader import Format, ReadOptions, open_source
from app.cli.client.results import Results
from app.cli.client.summary import Outcome, as_document, print_summary
from app.cli.client.text import check_text
from app.cli.client.uploader import SendOptions
from app.cli.client.waits import find_waits
from app.domain.outcomes import Consistency

_SHOWN = 20

_HELP = """\
Import the contacts of FILE (CSV, NDJSON or JSON; `-` reads standard input) and tell what became of every row.

The first line of a CSV file names the columns. id, email, first_name, last_name, phone, company, if_version and
source_version are recognized whatever their case, spaces, dashes and underscores; every other column becomes an
attribute of that name, unless --map or --ignore says otherwise; --preview shows it. So are usual names of the
fields in English, German, French and Spanish (Vorname, Téléphone), where only one column has such a name. An empty
cell leaves the field as it is. --map "Email=id" takes a column as the id and the e-mail address.

Rows that the server marks `retry` are sent again, not before the time it told. Rows with one id are sent in the
order of the file. A push that was killed goes on where it stopped when the same command is run again, and nothing
is done twice; once a push has ended, pushing the same file is a new import. (The memory of a begun push is a small
file in $XDG_STATE_HOME/tranche or ~/.local/state/tranche.)

--mode file sends the file as one request, however long it is, and the server works on it by itself: the way for
large files. The rows are then one batch for --on-duplicate, and --atomic applies all of them or none.

--failed-out gets the rows that failed or still wait, as they stand in FILE. CSV: the columns error_code,
error_detail and retry_after_seconds stand in front, and are skipped when the file is fixed and pushed. NDJSON and
JSON: one item a line, with the reasons in PATH.reasons.ndjson. The file is replaced in one step at the end; when
nothing failed it is left with the header alone (NDJSON: empty).

Exit code: 0 all ok; 1 some rows failed for good; 2 usage, authentication or a refused request; 3 patience ended
with work left (the same command goes on); 130 interrupted.
"""


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    """The command line, understood."""

    file: str
    read: ReadOptions
    connection: Connection
    batch_size: int
    concurrency: int
    patience: float
    first_contact: float | None
    wait: bool
    dry_run: bool
    on_duplicate: str
    consistency: str
    mode: str
    atomic: bool
    failed_out: str | None
    run: str | None
    fresh: bool
    as_json: bool
    quiet: bool


@click.command("push", help=_HELP, context_settings={"max_content_width": 110})
@click.argument("file")
@connection_options
@click.option(
    "--map",
    "mapping",
    multiple=True,
    metavar='"COLUMN=FIELD"',
    help="Which column is which field; repeatable.",
)
@click.option(
    "--ignore", "ignored", multiple=True, metavar="COLUMN", help="Leave this column out; repeatable."
)
@click.option("--preview", is_flag=True, help="Show which column is which field, and send nothing.")
@click.option(
    "--format",
    "format_",
    type=click.Choice([f.value for f in Format]),
    help="By name and content if not told.",
)
@click.option(
    "--encoding", help="Of the file, for example windows-1252.  [default: byte order mark, else UTF-8]"
)
@click.option("--delimiter", help="Of a CSV file: , ; | or tab.  [default: found in the header]")
@click.option(
    "--mode",
    type=click.Choice(["batch", "file"]),
    default="batch",
    show_default=True,
    help="Many requests of some rows, or one with the whole file.",
)
@click.option(
    "--batch-size", type=click.IntRange(1, 1000), default=1000, show_default=True, help="Rows of one request."
)
@click.option(
    "--concurrency", type=click.IntRange(1, 32), default=4, show_default=True, help="Requests at a time."
)
@click.option(
    "--on-duplicate",
    type=click.Choice(["fail", "last_wins"]),
    default="fail",
    show_default=True,
    help="When one batch (or the file, if it is sent as one) has differing rows with one id.",
)
@click.option(
    "--consistency",
    type=click.Choice([word.value for word in Consistency]),
    default=Consistency.NONE.value,
    show_default=True,
    help="all_destinations: a row that one destination finally refuses is taken back at the others, and here.",
)
@click.option("--atomic", is_flag=True, help="All rows or none; --mode file.")
@click.option("--dry-run", is_flag=True, help="Have everything checked and nothing written.")
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Wait until the destinations have the rows."
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="Longest time without an answer while sending; then longest wait for `retry` rows and destinations.",
)
@click.option("--failed-out", metavar="PATH", help="Write the rows that did not make it to this file.")
@click.option(
    "--run", "run_name", metavar="NAME", help="Identity of this import, instead of one kept by the client."
)
@click.option("--fresh", is_flag=True, help="Forget that an earlier push of this file was cut off.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
@click.pass_context
def push_command(
    context: click.Context,
    /,
    file: str,
    url: str | None,
    key: str | None,
    mapping: tuple[str, ...],
    ignored: tuple[str, ...],
    preview: bool,
    format_: str | None,
    encoding: str | None,
    delimiter: str | None,
    run_name: str | None,
    **options: object,
) -> None:
    def read_options() -> ReadOptions:
        return ReadOptions(
            format=Format(format_) if format_ else None,
            encoding=encoding,
            delimiter=delimiter,
            mapping=mapping,
            ignored=ignored,
        )

    def build() -> _Request:
        _check_mode(context, file_mode=options["mode"] == "file")
        read = read_options()
        asked = context.get_parameter_source("patience") is ParameterSource.COMMANDLINE
        given = {
            **options,
            "file": file,
            "run": run_name,
            "first_contact": None if asked else FIRST_CONTACT,
        }
        return _Request(read=read, connection=find_connection(url, key), **given)  # type: ignore[arg-type]

    async def work() -> int:
        if preview:
            return _preview(file, read_options(), as_json=bool(options["as_json"]))
        return await _push(build(), SystemClock())

    hint = "Run the same command again to go on where it stopped; nothing is sent twice."
    context.exit(run_command("push", work, as_json=bool(options["as_json"]), interrupted=hint))


def _check_mode(context: click.Context, *, file_mode: bool) -> None:
    """
    Raises:
        UsageError: an option was told that means nothing in this mode.
    """
    for name in ("batch_size", "concurrency") if file_mode else ("atomic",):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            mode = "batch" if file_mode else "file"
            raise UsageError(f"--{name.replace('_', '-')} is for --mode {mode}")


def _preview(file: str, read: ReadOptions, *, as_json: bool) -> int:
    """Print what each column of the file becomes, with its first value."""
    with _on_disk(file) as path:
        source = open_source(path, read, name=file)
        if not isinstance(source, CsvSource):
            raise UsageError("--preview is for CSV: JSON and NDJSON name their fields themselves")
    seen = [
        next((row[i] for row in source.sample if i < len(row) and row[i].strip()), "")
        for i in range(len(source.columns.header))
    ]
    columns = [
        (name, meaning, value) for (name, meaning), value in zip(source.columns.describe(), seen, strict=True)
    ]
    if as_json:
        document = {
            "file": file,
            "columns": [{"column": n, "becomes": m, "example": v} for n, m, v in columns],
        }
        print(msgspec.json.encode(document).decode())
        return 0
    table = Table(box=None, pad_edge=False)
    for title in ("column", "becomes", "first value"):
        table.add_column(title)
    for cells in columns:
        table.add_row(*(Text(clean(cell)) for cell in cells))
    Console().print(table)
    print("nothing was sent; --map and --ignore change what a column becomes")
    return 0


def _tell_columns(source: AnySource, display: Display) -> None:
    if not isinstance(source, CsvSource):
        return
    told = source.columns.describe()
    fields = [
        f"{name} → {meaning}" for name, meaning in told if not meaning.startswith(("attribute ", "ignored"))
    ]
    display.say("columns: " + ", ".join(fields))
    for title, word in (("attributes", "attribute "), ("ignored", "ignored")):
        names = [name for name, meaning in told if meaning.startswith(word)]
        if names:
            rest = f", … ({len(names)})" if len(names) > _SHOWN else ""
            display.say(f"{title}: {', '.join(names[:_SHOWN])}{rest}")


async def _push(request: _Request, clock: Clock) -> int:
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(_on_disk(request.file))
        source: AnySource = open_source(path, request.read, name=request.file)
        if isinstance(source, CsvSource):
            # The service refuses such a file as a whole, so sending what it has in ASCII alone would be another import.
            check_text(path, source.encoding, name=request.file)
        body = None
        if request.mode == "file":
            source, body = open_body(source, request.read.delimiter)
        before = os.stat(path)
        if request.failed_out:
            check_target(request.failed_out, source)
        display = _choose_display(request, path, clock)
        mark = "" if request.dry_run else _mark(request, path)
        book = _open_journal(request, mark, display, stack) if mark else None
        run = book.entry.run if book else secrets.token_hex(16)
        if book is not None and book.resumed:
            request = msgspec.structs.replace(
                request, first_contact=None
            )  # it has begun: the server was there
        results = stack.enter_context(contextlib.closing(Results()))
        with display:
            _tell_columns(source, display)
            if body is None:
                outcome = await push(source, _batch_options(request, run), results, display, clock=clock)
            else:
                file_options = _file_options(request, run, mark)
                outcome = await push_file(source, body, file_options, results, display, clock=clock)
        outcome.file = request.file
        outcome.warnings = getattr(source, "warnings", {})
        outcome.resumed = book is not None and book.resumed
        _write_failed(request.failed_out, source, before, results, outcome)
        if book is not None and (outcome.exit_code in (0, 1) or outcome.over):
            book.finish()
        _report(request, outcome, results)
        if outcome.exit_code == 3 and not request.as_json:
            await _tell_waits(request, results, clock)
        return outcome.exit_code


async def _tell_waits(request: _Request, results: Results, clock: Clock) -> None:
    """Why what is left waits; whatever hinders the question is no news here."""
    patience = Patience(clock, FIRST_CONTACT)
    with contextlib.suppress(ClientError):
        async with Api(request.connection.url, request.connection.key, clock=clock, patience=patience) as api:
            for line in await find_waits(api, results.effects(), results.waits()):
                print(line, file=sys.stderr)


def _batch_options(request: _Request, run: str) -> PushOptions:
    send = SendOptions(
        run=run,
        on_duplicate=request.on_duplicate,
        consistency=request.consistency,
        dry_run=request.dry_run,
        concurrency=request.concurrency,
        await_effects=request.wait,
    )
    return PushOptions(
        url=request.connection.url,
        key=request.connection.key,
        batch_size=request.batch_size,
        patience=request.patience,
        first_contact=request.first_contact,
        send=send,
    )


def _file_options(request: _Request, run: str, mark: str) -> FileOptions:
    return FileOptions(
        url=request.connection.url,
        key=request.connection.key,
        run=run,
        mark=mark,
        params=_query(request),
        patience=request.patience,
        first_contact=request.first_contact,
        await_effects=request.wait,
        atomic=request.atomic,
        dry_run=request.dry_run,
    )


def _query(request: _Request) -> list[tuple[str, str]]:
    """
    Raises:
        UsageError: a renaming that cannot be told in a query.
    """
    query: list[tuple[str, str]] = []
    query += [("ignore", column) for column in request.read.ignored]
    for column, field in parse_mapping(request.read.mapping).items():
        if ":" in field:
            raise UsageError(f"--map {column}={field}: no colon in the name of a field; use --mode batch")
        query.append(("map", f"{column}:{field}"))
    if request.on_duplicate != "fail":
        query.append(("on_duplicate", request.on_duplicate))
    if request.consistency != Consistency.NONE:
        query.append(("consistency", request.consistency))
    query += [(name, "true") for name in ("atomic", "dry_run") if getattr(request, name)]
    return query


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


def _choose_display(request: _Request, path: str, clock: Clock) -> Display:
    if request.quiet or (request.as_json and not sys.stderr.isatty()):
        return Silence()
    return Bars(os.path.getsize(path)) if sys.stderr.isatty() else Lines(clock)


def _mark(request: _Request, path: str) -> str:
    """Tells apart the file and everything that shapes the requests made of it."""
    facts: dict[str, object] = {
        "url": request.connection.url,
        "read": request.read,
        "on_duplicate": request.on_duplicate,
        "run": request.run,
    }
    if request.consistency != Consistency.NONE:
        facts |= {"consistency": request.consistency}
    if request.mode == "file":
        facts |= {"mode": request.mode, "atomic": request.atomic}
    else:
        facts |= {"batch_size": request.batch_size}
    return journal.fingerprint(path, facts)


def _open_journal(
    request: _Request, mark: str, display: Display, stack: contextlib.ExitStack
) -> Journal | None:
    """The journal, or none where its folder cannot be written: better an import that cannot be resumed than none.

    A made-up identity is not derived from the file then, because a second import of it, meant as one, would only be
    told the first one's answers.
    """
    folder = journal.state_dir(os.environ)
    try:
        book = stack.enter_context(
            Journal(folder, mark, file=request.file, name=request.run, fresh=request.fresh)
        )
    except OSError as error:
        display.say(
            f"cannot write to {folder} ({error.strerror}): if this push is cut off it cannot be resumed"
        )
        return None
    if book.resumed:
        display.say(
            f"resuming the push of {request.file} that began at {book.entry.started} (--fresh starts over)"
        )
    return book


def _write_failed(
    target: str | None, source: AnySource, before: os.stat_result, results: Results, outcome: Outcome
) -> None:
    if target is None:
        return
    after = os.stat(source.path)
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise ClientError(f"{source.path} has changed while it was pushed; {target} was not written")
    try:
        outcome.failed_rows = write_failed(target, source, results)
    except OSError as error:
        raise ClientError(
            f"{target} could not be written: {error.strerror}; run the same command again"
        ) from error
    outcome.failed_out = str(Path(target))


def _report(request: _Request, outcome: Outcome, results: Results) -> None:
    if request.as_json:
        print(msgspec.json.encode(as_document(outcome, results)).decode())
    elif not request.quiet:
        print_summary(outcome, results, Console())
        refused = any(counts.get("failed") or counts.get("dead") for counts in results.effects().values())
        if request.consistency != Consistency.NONE and refused:
            print(
                "what a destination refused is taken back everywhere: the job that does it stands in "
                "`tranche jobs show` as compensated_by"
            )
    if outcome.over:
        print(f"tranche push: {clean(outcome.trouble)}", file=sys.stderr)
