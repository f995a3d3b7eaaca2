"""Cells that no spreadsheet takes for a formula, and the way back (OWASP, "CSV Injection").

A spreadsheet runs a cell that begins with one of these signs. An apostrophe in front makes it text, but then `+49 30…`
would come back as `'+49 30…`; so a cell that has apostrophes before such a sign gets one more as well, and taking one
off gives back every cell exactly as it was.
"""

import re
from typing import Final

_SIGNS: Final = "=+\\-@\t\r\n＝＋－＠"  # noqa: RUF001
_RISKY: Final = re.compile(f"'*[{_SIGNS}]")
_FIRST: Final = frozenset("'=+-@\t\r\n＝＋－＠")  # noqa: RUF001
_GUARDED: Final = re.compile(f"'+[{_SIGNS}]")


def neutralize(cell: str) -> str:
    """The cell as text for a spreadsheet; `restore` undoes it."""
    # Most cells need no second look.
    return f"'{cell}" if cell[:1] in _FIRST and _RISKY.match(cell) else cell


def restore(cell: str) -> str:
    """The cell as it was before `neutralize`; one that was typed in without the apostrophe stays as it is."""
    return cell[1:] if _GUARDED.match(cell) else cell
