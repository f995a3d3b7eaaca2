"""What the columns of a file mean: as a table before a push, in a line or two at its beginning."""

from __future__ import annotations

from typing import Final

from app.cli.client.errors import UsageError
from app.cli.client.progress import Display
from app.cli.client.source_file import CsvFile, SourceFile
from app.cli.output import show_table

_SHOWN: Final = 20


def print_preview(source: SourceFile, *, as_json: bool) -> None:
    """Print what each column of the file becomes, with its first value.

    Raises:
        UsageError: it has no columns.
    """
    if not isinstance(source, CsvFile):
        raise UsageError("--preview is for CSV: JSON and NDJSON name their fields themselves")
    seen = [
        next((row[i] for row in source.sample if i < len(row) and row[i].strip()), "")
        for i in range(len(source.columns.header))
    ]
    columns = [(*meant, value) for meant, value in zip(source.columns.describe(), seen, strict=True)]
    described = [{"column": n, "becomes": m, "example": v} for n, m, v in columns]
    document = {"file": source.name, "columns": described}
    show_table(document, ("column", "becomes", "first value"), columns, as_json=as_json)
    if not as_json:
        print("nothing was sent; --map and --ignore change what a column becomes")


def show_columns(source: SourceFile, display: Display) -> None:
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
