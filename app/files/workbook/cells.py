"""The value of a cell → its text, as a CSV of the sheet in plain notation would have it."""

import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Final

Value = str | bool | int | float | date | datetime | time | timedelta

_EXACT: Final = 2.0**53
_SHORT: Final = 1e19
_TINY: Final = 1e-7


def write(value: Value) -> str:
    """Dates and times as in ISO 8601; a duration in hours, minutes and seconds, as a spreadsheet shows it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return write_number(float(value))
    if isinstance(value, timedelta):
        return _write_duration(value)
    return _trim(value.isoformat())


def write_number(number: float) -> str:
    """The shortest digits that mean this number, without an exponent unless it is very large or small."""
    if not math.isfinite(number):
        return repr(number)
    if number.is_integer() and abs(number) < _EXACT:
        return str(int(number))
    if _TINY <= abs(number) < _SHORT:
        # repr has the digits of the number as it was typed; only its exponent is unusual.
        text = f"{Decimal(repr(number)):f}"
        return text.removesuffix(".0")
    return repr(number)


def _write_duration(value: timedelta) -> str:
    micros = round(value.total_seconds() * 1e6)
    seconds, micros = divmod(abs(micros), 1_000_000)
    sign = "-" if value < timedelta(0) else ""
    text = f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return _trim(f"{text}.{micros:06}" if micros else text)


def _trim(text: str) -> str:
    """Spreadsheets know milliseconds only."""
    return text.rstrip("0") if "." in text else text
