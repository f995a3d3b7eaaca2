"""Tables in Markdown, as they go into docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Sequence


def show(title: str, header: Sequence[str], lines: Sequence[Sequence[object]], notes: Sequence[str] = ()) -> None:
    """Columns of numbers to the right, of words to the left."""
    cells = [[text(value) for value in line] for line in lines]
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    right = [all(not isinstance(line[i], str) for line in lines) for i in range(len(header))]
    print(f"\n### {title}\n", flush=True)
    print(_line(header, widths, right))
    print("|" + "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)) + "|")
    for row in cells:
        print(_line(row, widths, right))
    for note in notes:
        print(f"\n{note}")
    print(flush=True)


def text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    return (
        "| "
        + " | ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True))
        + " |"
    )
